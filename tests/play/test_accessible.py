"""The page for everybody: names, focus, contrast, sizes, light and dark."""

from __future__ import annotations

import pytest

from tests.play.test_browser import chromium, record, tab, url  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow

_CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] > 0) layers.push(colour);
      if (colour[3] === 1) break;
    }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => {
      const c = v / 255;
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const field = element.matches("input:not([type=range],[type=checkbox],[type=file]), select");
    if (!own && !field) continue;
    if (!element.checkVisibility() || element.closest(":disabled, .sr, option")) continue;
    const style = getComputedStyle(element);
    const below = behind(element);
    const drawn = element.closest("svg") ? style.fill : style.color;
    const opacity = Number(style.opacity);
    const colour = parse(drawn);
    const text = over([...colour.slice(0, 3), colour[3] * opacity], below);
    const [a, b] = [light(text), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const name = element.id || element.getAttribute("class");
    const what = `${element.tagName} ${name} ${element.textContent.slice(0, 30)}`;
    found.push({ what, ratio, least: large ? 3 : 4.5 });
  }
  return found;
}"""

_ROLES = {
    "button", "checkbox", "combobox", "link", "radio", "searchbox", "slider", "textbox",
    "application", "dialog", "list", "table", "image", "region", "navigation", "complementary",
    "radiogroup", "toolbar", "Canvas",
}  # fmt: skip


def show_everything(one) -> None:
    """Play, watch, and finish, so that there is something of everything."""
    one.choose("samples · test", 9)
    one.drag(0.3, 0.3, 0.6, 0.6)
    one.steps(1)
    one.page.select_option("#policy", label="oracle-box")
    one.at("#watch").click()
    one.at("#other-pane").wait_for()
    one.page.keyboard.press("s")
    one.steps(2)


def go_to(one, view: str) -> None:
    """Open a view and wait until what it asks the service for is drawn."""
    one.at(f"[data-view={view}]").click()
    drawn = {"recordings": "#rec-list button", "board": "#board-table th[scope=row]"}
    one.at(drawn.get(view, f"#{view}")).first.wait_for()


def show_a_volume(one) -> None:
    """Open the first volume of the page, prompt it and carry the mask through it."""
    one.at("[data-view=volumes]").click()
    one.at("#vol-you-pane[data-ready=true]").wait_for()
    frame = one.at("#vol-you-canvas").bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    one.page.mouse.move(x - 60, y - 60)
    one.page.mouse.down()
    one.page.mouse.move(x + 60, y + 60, steps=3)
    one.page.mouse.up()
    one.at("#vol-you-pane[data-taken='1']").wait_for()
    one.at("#vol-propagate").click()
    one.at("#vol-you-pane[data-taken='2']").wait_for()
    one.at("#vol-planes canvas").first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(tab, scheme) -> None:  # noqa: F811
    one = tab(color_scheme=scheme)
    show_everything(one)
    show_a_volume(one)
    for view in ("play", "volumes", "recordings", "board", "help", "own", "vol-own"):
        if view in ("help", "own", "vol-own"):
            one.at(f"[data-view={'volumes' if view == 'vol-own' else 'play'}]").click()
            one.at(f"#{view}-open").click()
        else:
            go_to(one, view)
        result = one.page.evaluate(_CONTRAST)
        assert len(result) > 10
        weak = [entry for entry in result if entry["ratio"] < entry["least"]]
        assert weak == [], view
        if view in ("help", "own", "vol-own"):
            one.page.keyboard.press("Escape")


def test_everything_has_a_name(tab) -> None:  # noqa: F811
    one = tab()
    show_everything(one)
    show_a_volume(one)
    session = one.page.context.new_cdp_session(one.page)
    for view in ("play", "volumes", "recordings", "board"):
        go_to(one, view)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in nodes if not node.get("ignored")]
        named = {
            (node["role"]["value"], node.get("name", {}).get("value", "").strip())
            for node in shown
            if node.get("role", {}).get("value") in _ROLES
        }
        assert len(named) > 10
        # A list of steps stands under its heading; pictures beside a case's name are decoration.
        nameless = {role for role, name in named if not name} - {"list"}
        assert nameless == set(), view
    levels = one.page.evaluate("() => [...document.querySelectorAll('main h1')].length")
    assert levels == 3 and one.page.evaluate("() => document.documentElement.lang") == "en"


def test_focus_goes_through_the_page_in_order_and_is_seen(tab) -> None:  # noqa: F811
    one = tab()
    seen: list[int] = []
    for _ in range(70):
        one.page.keyboard.press("Tab")
        result = one.page.evaluate(
            """() => {
              const e = document.activeElement;
              if (e === document.body) return null;
              const style = getComputedStyle(e);
              return [[...document.querySelectorAll("*")].indexOf(e), style.outlineStyle, e.id];
            }"""
        )
        if result is None:
            break
        assert result[1] != "none", result
        seen.append(result[0])
    assert len(seen) > 25 and seen == sorted(seen)
    wanted = one.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas")]
          .filter((e) => e.checkVisibility() && !e.disabled && e.tabIndex >= 0).length"""
    )
    assert len(set(seen)) >= wanted


@pytest.mark.parametrize("size", [(1280, 720), (768, 1024), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen(tab, size, scheme) -> None:  # noqa: F811
    width, height = size
    one = tab(viewport={"width": width, "height": height}, color_scheme=scheme)
    show_everything(one)
    show_a_volume(one)
    one.keep(f"volume-{scheme}-{width}")
    for view in ("play", "volumes", "recordings", "board"):
        go_to(one, view)
        across = one.page.evaluate("() => document.documentElement.scrollWidth")
        assert across <= width, view
    for view in ("volumes", "play"):
        one.at(f"[data-view={view}]").click()
        cut = one.page.evaluate(
            """() => [...document.querySelectorAll("main button, header button, select")]
              .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
              .map((e) => e.textContent)"""
        )
        assert cut == [], view
    one.keep(f"play-{scheme}-{width}")
