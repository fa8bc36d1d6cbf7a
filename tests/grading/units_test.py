"""Units are split off, parsed and converted, by known factors."""

from fractions import Fraction

from absl.testing import absltest, parameterized

from rstar_jax.grading import notation, units


class UnitsTest(parameterized.TestCase):
  @parameterized.parameters(
    ("50%", "50", "percent"),
    ("$5", "5", "dollar"),
    (r"-\$1.50", "-1.50", "dollars"),
    ("5 dollars", "5", "dollar"),
    (r"\euro 5", "5", "euros"),
    (r"5\text{ cm}", "5", "centimetres"),
    (r"5\mathrm{cm}^2", "5", "square cm"),
    ("20cm^{2}", "20", "cm^2"),
    (r"36\sqrt{7}cm^{3}", r"36\sqrt{7}", "cubic centimeters"),
    (r"\frac{3}{4}\pi\text{ inches}", r"\frac{3}{4}\pi", "inch"),
    ("5 red apples", "5", "red apple"),
    (r"90^\circ", "90", "degree"),
    (r"75^\circ\text{F}", "75", "degrees fahrenheit"),
    (r"15\text{ m/s}", "15", "meters per second"),
    ("60 mph", "60", "miles per hour"),
    ("5 meters squared", "5", "m^2"),
    (r"\$18 each", "18", "dollars each"),
    (r"-\$18 each", "-18", "dollars each"),
    (r"-\$18 in total", "-18", "dollars"),
    (r"\$2,000 per month", "2,000", "dollars per month"),
    (r"\$5 per hour", "5", "dollars per hour"),
    ("18 dollars in all", "18", "dollars"),
    ("5 third graders", "5", "third graders"),
    ("5 offers", "5", "offer"),
  )
  def test_split(self, text, body, unit):
    found = units.split(text)
    self.assertEqual(found, (body, units.parse(unit)))
    self.assertTrue(found[1])

  @parameterized.parameters(
    "5",
    "5x",
    "5 x",
    r"2 \pi",
    "3m",  # A product; "3 m" is a quantity.
    "5 of 10",
    "5 or 6",
    # Words that change the value.
    # Two currencies, and none.
    r"\$5 euros",
    r"\$5 per cent",
    r"\$5 cm",
    "5 tenths",
    r"5\text{ hundredths}",
    "2 thirds of it",
    "1 third",
    "3 fourth of it",
    "5 squared",
    "5 cubed",
    "5 factorial",
    "5 percent off",
    "5 degrees below zero",
    r"\sin 30^\circ",
    "x cm",
    "(5 cm",
    "",
  )
  def test_no_unit(self, text):
    self.assertEqual(units.split(text), (text, units.NONE))

  @parameterized.parameters(
    ("m", "cm", 100),
    ("hours", "minutes", 60),
    ("feet", "inches", 12),
    ("m^2", "cm^2", 10000),
    ("km/h", "m/s", Fraction(5, 18)),
    ("dollars", "cents", 100),
    ("kg", "g", 1000),
    ("kilograms", "mg", 10**6),
    ("tons", "kg", 1000),
    ("meters", "millimetres", 1000),
    ("kilometers", "m", 1000),
    ("inches", "cm", Fraction(254, 100)),
    ("yards", "feet", 3),
    ("miles", "yards", 1760),
    ("litres", "ml", 1000),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("degrees", "'", 60),
    # Of squares and cubes, and of what is below the line.
    ("square feet", "square inches", 144),
    ("cubic yards", "cubic feet", 27),
    ("feet cubed", "inches cubed", 1728),
    ("dollars per hour", "cents per minute", Fraction(5, 3)),
    ("kg/m^3", "g/cm^3", Fraction(1, 1000)),
    ("miles per hour per second", "feet per second^2", Fraction(22, 15)),
  )
  def test_converts(self, one, two, factor):
    found = units.factor(units.parse(one), units.parse(two))
    self.assertEqual(notation.rational(found), factor)

  @parameterized.parameters(
    ("cm", "", ""),
    ("apples", "red apples", ""),
    ("apples", "pears", None),
    ("cm", "cm^2", None),
    ("cm", "apples", None),
    ("dollars", "euros", None),
    ("percent", "degrees", None),
    ("am", "pm", None),
    ("celsius", "fahrenheit", None),
    # What is alone in its dimension is of the size of itself.
    ("pounds", "lb", ""),
    ("euros", "eur", ""),
    ("yen", "yen", ""),
    ("rupees", "rupee", ""),
    ("oz", "ounces", ""),
    ("percent", "%", ""),
    ("radians", "rad", ""),
    ("degrees celsius", "celsius", ""),
    ("fahrenheit", "degrees fahrenheit", ""),
    ("N", "newtons", ""),
    ("am", "a.m.", ""),
    ("degrees", "radians", r"\frac{1}{180}\cdot\pi"),
  )
  def test_factor(self, one, two, expected):
    self.assertEqual(bool(units.parse(one)), True)
    found = units.factor(units.parse(one), units.parse(two))
    self.assertEqual(found, expected)

  @parameterized.parameters(
    ("101_2", ("101", 2)),
    ("(1011)_{2}", ("1011", 2)),
    (r"204_{\text{five}}", ("204", 5)),
    (r"4\text{A}3_{16}", ("4A3", 16)),
    (r"2516 \text{ (base 8)}", ("2516", 8)),
    ("x_1", None),
    ("A_2", None),
    ("101", None),
  )
  def test_base(self, text, expected):
    self.assertEqual(units.base(text), expected)


if __name__ == "__main__":
  absltest.main()
