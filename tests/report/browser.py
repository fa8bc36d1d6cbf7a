"""A headless Chromium for tests, and the folder of their screenshots."""

import os
import pathlib
import shutil
import tempfile
import unittest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
# Environment variable with the folder of screenshots; temporary if not set.
PICTURES = "RSTAR_JAX_TEST_PICTURES"

# Without downloads and dialogs; as root, Chromium needs --no-sandbox.
_FLAGS = (
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--force-device-scale-factor=1",
)


def pictures() -> pathlib.Path:
  """Returns the folder of the screenshots."""
  folder = pathlib.Path(os.environ.get(PICTURES) or tempfile.mkdtemp())
  folder.mkdir(parents=True, exist_ok=True)
  return folder


def start(profile: pathlib.Path):
  """Returns a driver of a new browser.

  Args:
    profile: an empty folder, for what it remembers.

  Raises:
    unittest.SkipTest: there is no browser here, or no driver of it.
  """
  binary = next(filter(None, map(shutil.which, CHROMIUM)), None)
  driver = shutil.which("chromedriver")
  if binary is None or driver is None:
    raise unittest.SkipTest(
      "no chromium and chromedriver here (Debian: chromium, chromium-driver)"
    )
  try:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
  except ImportError:
    raise unittest.SkipTest("selenium is not installed: pip, [test]") from None
  options = webdriver.ChromeOptions()
  options.binary_location = binary
  for flag in (*_FLAGS, f"--user-data-dir={profile}"):
    options.add_argument(flag)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
  return webdriver.Chrome(options=options, service=Service(driver))


class Page:
  """A page in a browser, by selectors and keys.

  Attributes:
    driver: of selenium.
  """

  def __init__(self, driver):
    self.driver = driver

  def open(self, path: pathlib.Path, address: str = "") -> None:
    """Reloads a file at an address such as "#view=problems"."""
    self.driver.get("about:blank")
    self.driver.get(f"{path.as_uri()}{address}")
    self.wait("document.documentElement.dataset.ready")
    self.settle()

  def wait(self, expression: str) -> None:
    """Waits until a JavaScript expression is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    # Far past what a busy machine takes.
    WebDriverWait(self.driver, 120.0, poll_frequency=0.05).until(
      lambda driver: driver.execute_script(f"return Boolean({expression})")
    )

  def settle(self) -> None:
    """Waits until the browser has painted."""
    self.driver.execute_async_script(
      "const done = arguments[0];"
      "requestAnimationFrame(() => requestAnimationFrame(() => done()));"
    )

  def run(self, script: str, *arguments):
    """Returns the result of a script."""
    return self.driver.execute_script(script, *arguments)

  def text(self, selector: str) -> str:
    """Returns the text of the first element, whitespace as one space."""
    found = self.run(
      "return document.querySelector(arguments[0])?.textContent.toWellFormed()",
      selector,
    )
    return " ".join((found or "").split())

  def texts(self, selector: str) -> list[str]:
    """Returns the texts of all elements."""
    found = self.run(
      "return [...document.querySelectorAll(arguments[0])]"
      ".map((each) => each.textContent.toWellFormed())",
      selector,
    )
    return [" ".join(each.split()) for each in found]

  def count(self, selector: str) -> int:
    """Returns the number of elements."""
    return self.run(
      "return document.querySelectorAll(arguments[0]).length", selector
    )

  def attribute(self, selector: str, name: str) -> str | None:
    """Returns an attribute of the first element."""
    return self.run(
      "return document.querySelector(arguments[0]).getAttribute(arguments[1])",
      selector,
      name,
    )

  def click(self, selector: str) -> None:
    """Scrolls to the first element and clicks it with the mouse."""
    from selenium.webdriver.common.action_chains import ActionChains

    element = self.driver.find_element("css selector", selector)
    self.run(
      "arguments[0].scrollIntoView({block: 'center', inline: 'center'})",
      element,
    )
    ActionChains(self.driver).move_to_element(element).click().perform()
    self.settle()

  def keys(self, *names: str) -> None:
    """Presses keys, by their names in selenium's `Keys` or as they are."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    for name in names:
      key = getattr(Keys, name, name)
      ActionChains(self.driver).send_keys(key).perform()
    self.settle()

  def screen(self, width: int, height: int, theme: str = "light") -> None:
    """Sets the size of the window, in pixels, and the system's theme."""
    self.driver.execute_cdp_cmd(
      "Emulation.setDeviceMetricsOverride",
      {
        "width": width,
        "height": height,
        "deviceScaleFactor": 1,
        "mobile": width < 500,
      },
    )
    self.driver.execute_cdp_cmd(
      "Emulation.setEmulatedMedia",
      {
        "features": [
          {"name": "prefers-color-scheme", "value": theme},
          {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
      },
    )

  def picture(self, path: pathlib.Path) -> None:
    """Writes a screenshot as a PNG file."""
    self.settle()
    self.driver.save_screenshot(str(path))

  def complaints(self) -> list[str]:
    """Returns the browser's errors since the last call."""
    return [each["message"] for each in self.driver.get_log("browser")]
