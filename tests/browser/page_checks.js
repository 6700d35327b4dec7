// Each check gives a list of what is wrong with the page, in words; an empty list is a good page.
(() => {
  const visible = (element) => {
    for (let one = element; one instanceof Element; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (style.display === "none" || style.visibility === "hidden" || Number(style.opacity) === 0) return false;
      if (one.tagName === "DETAILS" && !one.open && !element.closest("summary")) return false;
    }
    return true;
  };
  const texts = () => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const node = walker.currentNode;
      const parent = node.parentElement;
      if (!node.data.trim() || parent.closest("title, desc, style, script") || !visible(parent)) continue;
      found.push(node);
    }
    return found;
  };
  const words = (node) => JSON.stringify(node.data.trim().slice(0, 40));

  const overflow = () => {
    const wrong = [];
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) {
      wrong.push(`the page is ${document.documentElement.scrollWidth} px wide, the window ${width}`);
    }
    for (const node of texts()) {
      if (node.parentElement.closest(".scroll")) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const box = range.getBoundingClientRect();
      if (box.right > width + 1 || box.left < -1) wrong.push(`${words(node)} reaches from ${box.left} to ${box.right} px`);
    }
    return wrong;
  };

  const parse = (color) => {
    const numbers = color.match(/[\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers.length > 3 ? numbers[3] : 1 };
  };
  const over = (top, alpha, below) => top.map((value, index) => value * alpha + below[index] * (1 - alpha));
  const luminance = (rgb) => {
    const linear = rgb.map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer.rgb, layer.alpha, below), [255, 255, 255]);
  };
  const touching = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
  const behindInPlot = (text) => {
    let color = behind(text.ownerSVGElement.parentElement);
    for (const shape of text.ownerSVGElement.querySelectorAll("path, rect")) {
      const style = getComputedStyle(shape);
      const before = shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING;
      if (style.fill === "none" || !before || !touching(shape.getBoundingClientRect(), text.getBoundingClientRect())) continue;
      const fill = parse(style.fill);
      color = over(fill.rgb, fill.alpha * Number(style.opacity) * Number(style.fillOpacity), color);
    }
    return color;
  };
  const contrast = (least) => {
    const wrong = [];
    for (const node of texts()) {
      const parent = node.parentElement;
      const inPlot = parent.ownerSVGElement;
      const ink = parse(inPlot ? getComputedStyle(parent).fill : getComputedStyle(parent).color);
      const ground = inPlot ? behindInPlot(parent) : behind(parent);
      const seen = ratio(over(ink.rgb, ink.alpha, ground), ground);
      if (seen < least) wrong.push(`${words(node)} has a contrast of ${seen.toFixed(2)}`);
    }
    return wrong;
  };

  const plots = () => {
    const wrong = [];
    for (const svg of document.querySelectorAll("svg")) {
      const name = svg.querySelector("title")?.textContent ?? "";
      if (!name) wrong.push("a plot has no title");
      if (!svg.querySelector("desc")?.textContent) wrong.push(`${name}: no description`);
      const marks = [...svg.querySelectorAll(".line, .dot, .hollow, .interval, .estimate, .answered, .failed")];
      const drawn = marks.filter((mark) => { const box = mark.getBBox(); return box.width + box.height > 0; });
      if (!drawn.length) wrong.push(`${name}: nothing is drawn`);
      const view = svg.viewBox.baseVal;
      const labels = [...svg.querySelectorAll("text")].filter((label) => label.textContent.trim());
      if (!labels.length) wrong.push(`${name}: no labels`);
      const boxes = labels.map((label) => label.getBBox());
      boxes.forEach((box, index) => {
        const label = labels[index].textContent;
        if (box.x < view.x - 0.5 || box.y < view.y - 0.5 || box.x + box.width > view.x + view.width + 0.5 || box.y + box.height > view.y + view.height + 0.5) {
          wrong.push(`${name}: "${label}" is cut off`);
        }
        boxes.slice(index + 1).forEach((other, offset) => {
          const wide = Math.min(box.x + box.width, other.x + other.width) - Math.max(box.x, other.x);
          const high = Math.min(box.y + box.height, other.y + other.height) - Math.max(box.y, other.y);
          if (wide > 0.5 && high > 3) wrong.push(`${name}: "${label}" overlaps "${labels[index + 1 + offset].textContent}"`);
        });
      });
      for (const mark of drawn) {
        const box = mark.getBBox();
        if (box.x < view.x - 6 || box.x + box.width > view.x + view.width + 6 || box.y < view.y - 6 || box.y + box.height > view.y + view.height + 6) {
          wrong.push(`${name}: a ${mark.getAttribute("class")} is outside the plot`);
        }
      }
    }
    return wrong;
  };

  const overlaps = () => {
    const boxes = [];
    for (const node of texts()) {
      if (node.parentElement.ownerSVGElement) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const clip = node.parentElement.closest(".scroll")?.getBoundingClientRect();
      for (const box of range.getClientRects()) {
        const right = clip ? Math.min(box.right, clip.right) : box.right;
        if (right - box.left > 1) boxes.push({ left: box.left, right, top: box.top + 3, bottom: box.bottom - 3, node });
      }
    }
    const wrong = [];
    boxes.forEach((box, index) => {
      for (const other of boxes.slice(index + 1)) {
        if (other.node !== box.node && touching(box, other)) wrong.push(`${words(box.node)} lies over ${words(other.node)}`);
      }
    });
    return wrong;
  };

  const bars = () => {
    const wrong = [];
    for (const list of document.querySelectorAll(".bars, .timeline")) {
      let before = -Infinity;
      for (const row of list.querySelectorAll(".stage:not(.ticks)")) {
        const [name, track, value] = ["dt", ".track", ".span"].map((part) => row.querySelector(part).getBoundingClientRect());
        const words = JSON.stringify(row.textContent.trim().slice(0, 40));
        if (Math.abs(name.top - value.top) > 3) wrong.push(`${words}: name and value are apart`);
        if (name.top < before) wrong.push(`${words} begins in the row before`);
        before = Math.max(name.bottom, track.bottom) - 1;
      }
    }
    return wrong;
  };

  const small = (least) => texts()
    .map((node) => {
      const parent = node.parentElement;
      const svg = parent.ownerSVGElement;
      const scale = svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1;
      return [node, parseFloat(getComputedStyle(parent).fontSize) * scale];
    })
    .filter(([, size]) => size < least)
    .map(([node, size]) => `${words(node)} is ${size.toFixed(1)} px high`);

  const headings = () => {
    const wrong = [];
    if (document.querySelectorAll("h1").length !== 1) wrong.push("not exactly one h1");
    if (!document.documentElement.lang) wrong.push("no language");
    if (!document.title) wrong.push("no title");
    let level = 1;
    for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
      const next = Number(heading.tagName[1]);
      if (next > level + 1) wrong.push(`${JSON.stringify(heading.textContent)} skips a level`);
      level = next;
    }
    return wrong;
  };

  return { overflow: overflow(), contrast: contrast(4.5), plots: plots(), overlaps: overlaps(), bars: bars(), small: small(9), headings: headings() };
})()
