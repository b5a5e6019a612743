"""Templates of prompt functions render as Jinja2 renders them: each case beside the package itself."""

import dataclasses
import datetime
import decimal
import enum

import jinja2
import pytest

from byzerllm.errors import InvalidRequestError
from byzerllm.utils import format_prompt_jinja2, format_str_jinja2


class Color(str, enum.Enum):
    RED = "red"


@dataclasses.dataclass
class File:
    name: str
    tags: list[str]
    _hidden: str = "secret"

    def shout(self, times=1, end="!"):
        return self.name.upper() * times + end


VARIABLES = {
    "name": "World",
    "n": 3,
    "f": 2.5,
    "nothing": None,
    "yes": True,
    "items": ["a", "b", 1, None, 2.0],
    "d": {"x": 1, "items": 5, "y": {"z": [1, 2]}},
    "file": File("bob", ["q", "r"]),
    "files": [File("bob", ["q"]), File("al", [])],
    "day": datetime.date(2024, 1, 2),
    "price": decimal.Decimal("1.10"),
    "color": Color.RED,
    "text": "a <b> & 'c' 中文\nline2",
    "big": 10**30,
    "pair": (1, "x"),
    "add": lambda x, y=1: f"{x}-{y}",
    "three": lambda: (i for i in range(3)),
}

TEMPLATES = [
    "Hello, {{ name }}!\n",
    "\nHello {{name}}\n\n",
    "{% for i in items %}{{ loop.index }}/{{ loop.length }}:{{ i }}{% if not loop.last %}, {% endif %}{% endfor %}",
    "{{ items }} {{ d }} {{ pair }} {{ nothing }} {{ yes }} {{ f }} {{ n }} {{ [1, 'a', none, true, 2.0] }} {{ {'a': 1} }}",
    "{{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ -n }} {{ 1e20 }} {{ n == 3.0 }} {{ 1 < n < 5 }} {{ not yes }}",
    "{{ missing }}|{{ missing | default('x') }}|{{ nothing | default('x', true) }}|{{ missing | upper }}|{{ missing | string }}",
    "{{ file.name }} {{ file.shout() }} {{ file.shout(2, end='?') }} {{ file['name'] }} {{ file.nope }}|{{ file.nope is defined }}",
    "{{ day }} {{ day.strftime('%Y/%m') }} {{ day.year }} {{ day - day }} {{ price + 1 }} {{ big }}",
    "{{ color }} {{ color.value }} {{ color == 'red' }}",
    "{{ name.upper() }} {{ name.center(11) }}| {{ 'a,b'.split(',') }} {{ '{} {:>4}'.format(1, 'x') }} {{ name[1:3] }}{{ name[-1] }}",
    "{{ '%s is %d' % (name, n) }} {{ '%.2f' | format(f) }} {{ yes ~ nothing ~ f }} {{ 'ab' * 2 }}",
    "{{ items | join(',') }} {{ files | map(attribute='name') | join(', ') }} {{ items[1:] }} {{ items + [1] }} {{ pair + (2,) }}",
    "{{ files | selectattr('tags') | map(attribute='name') | list }} {{ files | rejectattr('tags') | list | length }}",
    "{{ d | tojson }} {{ text | tojson }} {{ d | tojson(indent=2) }}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %} {{ d.get('q', 9) }}",
    "{{ d.x }} {{ d['y'].z[1] }} {{ d.y.z | sum }} {{ 'x' in d }} {{ 1 in d.y.z }} {{ 9 not in d.y.z }}",
    "{{ add(1) }} {{ add(1, y=2) }} {{ add('a') | upper }} {% for x in three() %}{{ x }}{% if loop.last %}.{% endif %}{% endfor %}",
    "{% if items and n > 2 and 'a' in items and name is string and nothing is none %}yes{% else %}no{% endif %}",
    "{% if n > 5 %}a{% elif n > 2 %}b{% else %}c{% endif %} {{ 'yes' if n > 5 }} {{ 'yes' if n > 2 else 'no' }}",
    "a\n  {%- if yes %}\n  b\n  {%- endif %}\nc\n",
    "{% if yes %}\nx\n{% endif %}\ny",
    "{%- for file in files %}\n##File: {{ file.name }}\n{{ file.tags }}\n{%- endfor %}\n",
    "{% raw %}{{ x }}{% endraw %}{# c #}{% set q = n + 1 %}{{ q }}{{ n ~ 'x' ~ f }}",
    "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}",
    "{% set ns = namespace(x=0) %}{% for i in [1, 2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% filter upper %}abc{{ name }}{% endfilter %}{% with z = 2 %}{{ z }}{% endwith %}",
    "{{ 'hello world foo bar' | truncate(10, leeway=0) }} {{ 'hello world' | wordcount }} {{ 'a b c d' | wordwrap(3) }}",
    "{{ 42.567 | round(1) }} {{ 42.567 | round }} {{ '3' | int }} {{ 'x' | int(7) }} {{ '1.5' | float }} {{ 3.7 | int }}",
    "{{ items | first }} {{ [3, 1, 2] | sort }} {{ [3, 1, 2] | max }} {{ [1, 2] | reverse | list }} {{ [1, 1, 2] | unique | list }}",
    "{{ text | indent(4) }}|{{ text | e }}|{{ text | title }}|{{ 'hELLO' | capitalize }}|{{ ' x ' | trim }}",
    "{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ d.y | dictsort }} {{ range(3) | list }} {{ range(3) }}",
    "{{ 123456789 | filesizeformat }} {{ 'a b' | urlencode }} {{ {'a': 1} | urlencode }} {{ '<b>x</b>' | striptags }}",
    "{{ {'a': 1, 'b': none} | xmlattr }} {{ name | center(9) }}| {{ items | pprint }} {{ nothing | string }}",
    "{% set sep = joiner('|') %}{% for i in [1, 2] %}{{ sep() }}{{ i }}{% endfor %} {{ 3 is odd }} {{ name | list }}",
    "{{ n.bit_length() }} {{ f.is_integer() }} {{ name | length }} {{ d | items | list }} {{ ['a', 'b'] | map('upper') | join }}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_render_as_jinja2_renders_them(template):
    assert format_str_jinja2(template, **VARIABLES) == jinja2.Template(template).render(VARIABLES)


def test_a_docstring_loses_its_indentation():
    def hello(name):
        """
          Hello, {{ name }}!
              indented
        less
        """

    def one_line():
        """Hello"""

    assert format_prompt_jinja2(hello, name="you") == "\nHello, you!\n    indented\nless"
    assert format_prompt_jinja2(one_line) == "Hello"
    assert format_prompt_jinja2("  a {{ s }}\n  b", s="x", func="y") == "a x\nb"


def test_arguments_may_have_any_name():
    assert format_str_jinja2("{{ s }}{{ source }}{{ self }}", s=1, source=2, self=3) == "123"


def test_what_python_raises_comes_through():
    def broken():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        format_str_jinja2("{{ broken() }}", broken=broken)
    with pytest.raises(TypeError):
        format_str_jinja2("{{ 1 + 'a' }}")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("a\n{{ x", "line 2"),
        ("{{ x | nosuch }}", "nosuch"),
        ("{{ missing.x }}", "undefined"),
        ("{{ missing + 1 }}", "undefined"),
        ("{{ file._hidden }}", "_hidden"),
        ("{{ file.__class__ }}", "__class__"),
        ("{{ file.shout.__globals__ }}", "__globals__"),
        ("{{ three().gi_frame }}", "gi_frame"),
        ("{{ '{0.__class__}'.format(file) }}", "underscore"),
        ("{% set l = [] %}{{ l.append(1) }}", "append"),
        ("{% include 'other' %}", "other"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "recursion"),
        (
            "{% set ns = namespace(l=[]) %}{% for i in range(9000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
            "nested at most",
        ),
    ],
)
def test_what_a_template_cannot_do_is_said(template, words):
    with pytest.raises(InvalidRequestError, match=words):
        format_str_jinja2(template, **VARIABLES)
