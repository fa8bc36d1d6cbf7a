r"""Gold answers in the forms of nine benchmarks, with numbers of our own.

The forms are those found in GSM8K, MATH (and MATH-500), AIME 2024, AMC 2023,
CollegeMath, Gaokao 2023, OlympiadBench and Omni-MATH. `<a>`, `<b>` and `<c>`
are different numbers from 2 to 9; `<n>` is from 1,000 to 99,999.
"""

import random
import re

FORMS = r"""
<a>
-<a>
<n>
0.<a>5
<a>.<b>
\frac{<a>}{<n>}
\frac{<a>}{<b>}
-\frac{<a>}{<b>}
\dfrac{<n>}{<a>}
<a>/<b>
<a>\frac{1}{<b>}
\sqrt{<a>}
<a>\sqrt{<b>}
-<a> \sqrt{<b>}
\frac{\sqrt{<a>}}{<b>}
\frac{<a> + \sqrt{<b>}}{<c>}
<a>+<b> \sqrt{<c>}
\sqrt{<a>} - \sqrt{<b>}
\frac{<a>\sqrt{<b>} - <c>}{<n>}
\sqrt[3]{<n>}
<a>\pi
\frac{<a>\pi}{<b>}
<a> \pi + <b>\sqrt{3}
\frac{\pi^2}{<a>}
<a>^{<n>}
<a>^{<b>} - 1
2^{<n>} + <a>
<a>!
\binom{<n>}{<a>}
\frac{<a>}{<b>^{<c>}}
<a>\log_2 <b>
\ln <a>
\frac{\ln <a>}{\ln <b>}
e^{<a>}
e^{-<a>/<b>} + <c>
<a>+<b>i
\frac{<a>-<b>i}{<c>}
-<a>i
<a>x+<b>
<a> x^2 - <b> x + <c>
x^3 + <a>x^2 - <b>x - <c>
\frac{<a>}{<b>} x + <c>
\frac{1}{2} x^2 + \frac{<a>}{4} x - <b>
0.<a> x + <b>
\frac{<a>}{x-<b>}
\frac{<a>x-<b>}{x^{2}+<c>}
(x-<a>)(x+<b>)
(<a>x - <b>)(<a>x^2 + <b>)
<a>(x+<b>)^2 (x-<c>)
\frac{a+b}{<a>}
\frac{<a>ab}{a+<b>b}
<a>a^{2}b^{<b>}
x^{\frac{<a>}{<b>}}
\frac{x^{<a>}}{y^{<b>}}
<a>y^{2}\sqrt{<b>x}
n(n+<a>)
\frac{n(n+1)}{<a>}
2^{n} - <a>
<a> \cdot 2^{n-<b>} + <c>
\left\lfloor \frac{n}{<a>} \right\rfloor + <b>
<a>\sin x + <b>\cos x
\arctan \frac{<a>}{<b>}
<a> \tan 20^\circ
<a>^\circ
<a> \sin^2 \theta
\frac{\theta}{<a>}
e^{0.<a>t}
<n>e^{-0.0<a>t}
|x - <a>|
y=<a>x+<b>
y = \frac{<a>}{2}x - <b>
y=-0.<a>x+<b>
f(x) = <a>x - <b>
f(x)=\frac{x}{<a>}
x=<a>
x = \frac{<a>}{<b>}
k = -<a>
<a>x - <b>y + <c> = 0
x^2 + y^2 = <a>
\frac{x^{2}}{<a>}+\frac{y^{2}}{<b>}=1
<a>,<b>
-<a>, <b>, \frac{<c>}{11}
<a>, \frac{1}{<b>}
\sqrt{<a>}, -\sqrt{<a>}
<a>+\sqrt{<b>}, <a>-\sqrt{<b>}
<a> \pm \sqrt{<b>}
\pm <a>
x=<a>, -<b>
x=-<a>,\frac{<b>}{7}
\{<a>, <b>, 1<c>\}
\left\{ -<a>, \frac{<b>}{7} \right\}
(<a>,<b>)
(-<a>, \frac{<b>}{<c>})
\left( \frac{<a>}{<b>}, -<c>, 0 \right)
(<a>,<b>),(<b>,<a>)
(<a>,-<b>),(-<a>,<b>)
(<a>, <b>, <c>)
(x,y)=(<a>,<b>)
(-\infty, -<a>)
[<a>,\infty)
(-<a>,<b>]
[-<a>,<b>)
\left[ -\frac{<a>}{2}, \infty \right)
(-\infty,-<a>)\cup(<b>,\infty)
(-\infty, -<a>] \cup [<b>, \infty)
x > <a>
x \leq -<a>
m \ge \frac{<a>}{<b>}
-<a> < x \leq <b>
x \neq <a>
<a>:<b>
1<a>:30
\begin{pmatrix} <a> & -<b> \\ 0 & <c> \end{pmatrix}
\begin{pmatrix} <a> \\ -<b> \end{pmatrix}
<a>\%
\$<a>.50
<a>\text{ cm}
<a> \text{ square units}
1<a>_{10}
A
\text{(C)}
\text{Yes}
\text{even}
Monday
\infty
\emptyset
f(x)=0 \text{ for all } x
f(x) = <a>x \text{ where } x > 0
f(x)=0 \text{ for all } x \text{ or } f(x)=<a>-x \text{ for all } x
f(n)=n \text{ and } f(n)=<a>n
n^2+<a> \text{ if } n \text{ is odd}, n^2+1<b> \text{ if } n \text{ is even}
P(x)=c \text{ for any } c > <a>
\frac{x^2}{<a>} + <b>x + C
<a>\ln|x| - \frac{<b>}{x} + C
\sum_{n=0}^{\infty} \frac{x^{n}}{<a>^{n}}
y = c_1 e^{<a>x} + c_2 e^{-<b>x}
x+<a>y-<b>z
\frac{<a>}{<b>}\mathbf{i}-<c>\mathbf{j}
p - <a>q
1 + <a> + <b> = <n>
""".strip().split("\n")


def golds(seed: int, per_form: int = 1) -> list[str]:
  """Returns gold answers, so many of each form.

  Args:
    seed: of the numbers.
    per_form: draws of each form.
  """
  found = {}
  for form in FORMS:
    choose = random.Random(f"{seed} {form}")
    for _ in range(per_form):
      small = choose.sample(range(2, 10), 3)
      numbers = dict(zip("abc", small, strict=True))
      numbers["n"] = choose.randint(1000, 99999)
      text = re.sub(
        "<(.)>", lambda match, numbers=numbers: str(numbers[match[1]]), form
      )
      found[text] = None
  return list(found)
