"use strict";

// Makes an element like a new one with the least change, so that whatever stays
// keeps its focus, its scroll position, and what the reader has opened.
Report.renew = (() => {
  // Returns the name by which an element is known again, "" for its place.
  function key(node) {
    return node.dataset?.key || node.id ||
      node.getAttribute?.("aria-labelledby") || "";
  }

  function into(old, next) {
    if (old.isEqualNode(next)) return;
    if (old.nodeName !== next.nodeName || old instanceof SVGElement ||
      !(old instanceof Element)) {
      old.replaceWith(next);
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!next.hasAttribute(name) && name !== "open") {
        old.removeAttribute(name);
      }
    }
    for (const { name, value } of next.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    children(old, next);
  }

  // Elements with a key stay in their order: new ones come between them.
  function children(old, next) {
    const wanted = [...next.childNodes];
    const names = new Set(wanted.map(key).filter(Boolean));
    for (const each of [...old.children]) {
      if (key(each) && !names.has(key(each)) && !isRead(each)) each.remove();
    }
    const known = new Map([...old.children].filter(key)
      .map((each) => [key(each), each]));
    let at = old.firstChild;
    for (const each of wanted) {
      while (at && isRead(at) && !names.has(key(at))) at = at.nextSibling;
      const same = key(each) ? known.get(key(each)) :
        at && !key(at) && at.nodeName === each.nodeName ? at : null;
      if (!same) {
        old.insertBefore(each, at);
      } else {
        if (same !== at) old.insertBefore(same, at);
        at = same.nextSibling;
        into(same, each);
      }
    }
    while (at) {
      const after = at.nextSibling;
      if (!isRead(at)) at.remove();
      at = after;
    }
  }

  // Says whether someone reads an element that is no longer among the newest.
  function isRead(node) {
    return Boolean(key(node) && (node.open || node !== document.activeElement &&
      node.contains(document.activeElement)));
  }

  return { into };
})();
