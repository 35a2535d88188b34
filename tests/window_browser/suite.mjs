// The window in a real Chromium: every view, hostile text, keys, themes, a phone, live, a long trajectory, the copy.
// node suite.mjs URL LIVE_URL COPY [SHOTS], with a command in TRAIN that writes the run `live`; prints a line a check, and ends with 1 when one failed.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { chromium } from "playwright-core";

const [base, live, copy, shots] = process.argv.slice(2);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const VIEWS = ["#runs", "#run?run=seed-0", "#list?run=seed-0", "#list?run=seed-0&correct=false&sort=-tokens",
  "#trajectory?run=seed-0&row=40", "#trajectory?run=seed-0&row=40&show=tokens", "#group?run=seed-0&row=40",
  "#task?run=seed-0&task=t0003", "#health?run=seed-0", "#compare?runs=seed-0&runs=seed-1&runs=seed-2&runs=slower",
  "#compare?runs=seed-0&runs=seed-1&runs=seed-2&runs=slower&fold=1", "#pair?run=seed-0&other=seed-1",
  "#evaluation?run=qa-after&other=qa-before", "#evaluation?run=bfcl", "#dataset?run=set"];
const HOSTILE = ["#run?run=hostile", "#list?run=hostile", "#trajectory?run=hostile&row=0",
  "#trajectory?run=hostile&row=0&show=tokens", "#group?run=hostile&row=0", "#health?run=hostile"];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
let failed = 0;
let trainer = null;

async function check(name, test) {
  const started = Date.now();
  try {
    const said = await test();
    console.log(`ok      ${name}${said ? `: ${said}` : ""} (${Date.now() - started} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.stack ?? error}`);
  }
}

/** A page that fails its test on an error, a refusal of its policy, a dialog, or a request to somebody else. */
async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && wrong.push(message.text()));
  page.on("dialog", (dialog) => { wrong.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(base) && !to.startsWith(live) && !to.startsWith("file:") && !to.startsWith("data:")) wrong.push(to);
  });
  return { page, wrong, context };
}

async function visit(page, address) {
  await page.goto(address);
  await page.waitForFunction((hash) => {
    const view = document.querySelector("main[data-view]:not([aria-busy])");
    return view && view.dataset.view === hash.slice(1).split("?")[0];
  }, new URL(address).hash, { timeout: 30_000 });
}

const sideways = (page) => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);

for (const [name, options] of [["light", { colorScheme: "light" }], ["dark", { colorScheme: "dark" }],
  ["a phone", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }]]) {
  await check(`every view, ${name}`, async () => {
    const { page, wrong, context } = await open(options);
    for (const view of VIEWS) {
      await visit(page, base + view);
      assert.equal(await page.locator("main [role=alert]").count(), 0, `${view}: ${await page.locator("main").innerText()}`);
      assert.ok((await page.locator("main h1").innerText()).length > 0, view);
      assert.ok((await sideways(page)) <= 0, `${view} is wider than the screen`);
    }
    const paper = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(paper, name === "dark" ? "rgb(17, 19, 22)" : "rgb(250, 250, 248)");
    assert.deepEqual(wrong, []);
    await context.close();
    return `${VIEWS.length} views`;
  });
}

await check("hostile text is inert and shown as it is", async () => {
  const { page, wrong, context } = await open();
  for (const view of HOSTILE) {
    await visit(page, base + view);
    await page.waitForTimeout(300);
    assert.equal(await page.evaluate(() => window.pwned), undefined, view);
    assert.equal(await page.locator("main script, main img, main iframe, main [onerror]").count(), 0, view);
    assert.ok((await sideways(page)) <= 0, `${view} is wider than the screen`);
    const text = await page.locator("main").innerText();
    assert.ok(!/[\u0000-\u0008\u202a-\u202e\u2066-\u2069\u001b]/.test(text), view);
  }
  await visit(page, `${base}#trajectory?run=hostile&row=0`);
  const text = await page.locator("main").innerText();
  for (const part of ["<script>window.pwned = 1</script>", "\u241b[31m red \u2400\\u202egnp.exe", "&lt;b&gt;"]) {
    assert.ok(text.includes(part), `${part} is not shown`);
  }
  assert.deepEqual(wrong, []);
  await context.close();
});

await check("a result of ten megabytes is shown in part, and goes on when asked", async () => {
  const { page, wrong, context } = await open();
  const started = Date.now();
  await visit(page, `${base}#trajectory?run=hostile&row=0`);
  const took = Date.now() - started;
  assert.ok(took < 5000, `${took} ms`);
  const more = page.locator(".result .more");
  const left = await more.innerText();
  assert.match(left, /9,99\d,\d{3} characters are left/);
  await more.click();
  await page.waitForFunction((before) => document.querySelector(".result .more").textContent !== before, left);
  assert.ok((await page.locator(".result").innerText()).length > 60_000);
  assert.deepEqual(wrong, []);
  await context.close();
});

await check("odd files are noted", async () => {
  const { page, context } = await open();
  await visit(page, `${base}#run?run=hostile`);
  const notes = await page.locator(".notes").innerText();
  for (const part of ["config.toml is not TOML", "last line is not whole", "step-000002.jsonl.zst is cut short"]) {
    assert.ok(notes.includes(part), `${part} in ${notes}`);
  }
  await context.close();
});

await check("keys alone lead from the runs to a token and back", async () => {
  const { page, wrong, context } = await open();
  await visit(page, `${base}#runs`);
  for (let at = 0; at < 12; at++) {
    await page.keyboard.press("j");
    if ((await page.evaluate(() => document.activeElement.textContent)) === "seed-0") break;
  }
  await page.keyboard.press("Enter");
  await page.waitForSelector("main[data-view=run]:not([aria-busy])");
  await page.keyboard.press("h");
  await page.waitForSelector("main[data-view=run], main[data-view=health]");
  await visit(page, `${base}#list?run=seed-0`);
  await page.keyboard.press("/");
  await page.keyboard.type("not sure");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => location.hash.includes("text=not+sure"));
  await page.waitForSelector("main[data-view=list]:not([aria-busy])");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.waitForSelector("main[data-view=trajectory]:not([aria-busy])");
  await page.keyboard.press("t");
  await page.locator(".tokens").focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.match(await page.locator(".about").innerText(), /place 1/);
  const first = await page.evaluate(() => location.hash);
  await page.locator("main").focus();
  await page.keyboard.press("]");
  await page.keyboard.press("[");
  await page.waitForTimeout(400);
  assert.ok((await page.evaluate(() => location.hash)).includes("run=seed-0"), first);
  await page.keyboard.press("?");
  assert.ok(await page.locator("dialog[open]").isVisible());
  await page.keyboard.press("Escape");
  await page.keyboard.press("u");
  await page.waitForSelector("main[data-view=list]:not([aria-busy])");
  assert.deepEqual(wrong, []);
  await context.close();
});

await check("each colouring of tokens says what is known and what is not", async () => {
  const { page, context } = await open();
  const say = async (mode) => {
    await page.locator(`[data-mode=${mode}]`).first().click();
    return page.locator(".legend-text").innerText();
  };
  await visit(page, `${base}#trajectory?run=seed-0&row=40&show=tokens`);
  assert.match(await say("entropy"), /entropy at each token was not recorded/);
  assert.match(await say("ratio"), /trainer's log-probabilities were not recorded/);
  assert.match(await say("logprob"), /the darker/);
  await page.waitForSelector(".token.heat");
  await visit(page, `${base}#trajectory?run=long&row=0&show=tokens`);
  assert.match(await say("entropy"), /full at 3 nats/);
  await page.waitForSelector(".token.heat.h3");
  assert.match(await say("ratio"), /factor/);
  await page.waitForSelector(".token.minus");
  await context.close();
});

await check("a trajectory of 32,768 tokens scrolls without a stall", async () => {
  const { page, wrong, context } = await open();
  await visit(page, `${base}#trajectory?run=long&row=0&show=tokens`);
  await page.waitForSelector(".token");
  const found = await page.evaluate(async () => {
    let last = performance.now();
    const still = [];
    for (let at = 0; at < 60; at++) {
      await new Promise(requestAnimationFrame);
      still.push(performance.now() - last);
      last = performance.now();
    }
    still.sort((a, b) => a - b);
    const gaps = [];
    const top = document.documentElement;
    const end = [...document.querySelectorAll(".token-block")].at(-1);
    // What was guessed about the height of blocks gives way to what it is, so the end moves until it is reached.
    while (end.childElementCount === 0 || top.scrollTop + innerHeight < top.scrollHeight - 2) {
      scrollBy(0, 240);
      await new Promise(requestAnimationFrame);
      gaps.push(performance.now() - last);
      last = performance.now();
    }
    gaps.sort((a, b) => a - b);
    return { still: still[57], frames: gaps.length, p95: gaps[Math.floor(gaps.length * 0.95)], worst: gaps.at(-1),
      last: end.lastChild.dataset.at };
  });
  assert.equal(found.last, "32767");
  // Whoever tests may share the processor, so what a page that does nothing waits for is not a stall.
  assert.ok(found.p95 < 100 + 4 * found.still && found.worst < 300 + 6 * found.still, JSON.stringify(found));
  assert.deepEqual(wrong, []);
  await context.close();
  return `${found.frames} frames, p95 ${found.p95.toFixed(0)} ms (still ${found.still.toFixed(0)} ms), worst ${found.worst.toFixed(0)} ms`;
});

await check("filters by click, and takes them away", async () => {
  const { page, context } = await open();
  await visit(page, `${base}#list?run=seed-0`);
  const all = await page.locator("main .lead[role=status]").innerText();
  await page.locator(".facet", { hasText: "wrong" }).click();
  await page.waitForFunction(() => location.hash.includes("correct=false"));
  await page.waitForSelector("main:not([aria-busy]) button.chip");
  const some = await page.locator("main .lead[role=status]").innerText();
  assert.notEqual(some, all);
  assert.match(some, / of .* 0 % right/);
  await page.locator("button.chip").first().click();
  await page.waitForFunction(() => !location.hash.includes("correct"));
  await context.close();
});

await check("seeds are folded into bands, and settings that differ are told", async () => {
  const { page, context } = await open();
  await visit(page, `${base}#compare?runs=seed-0&runs=seed-1&runs=seed-2&runs=slower&fold=1`);
  const text = await page.locator("main").innerText();
  assert.match(text, /3 seeds/);
  assert.match(text, /learner\.algorithm/);
  await page.waitForSelector("canvas");
  await context.close();
});

await check("evaluations lie beside each other", async () => {
  const { page, context } = await open();
  await visit(page, `${base}#evaluation?run=qa-after&other=qa-before`);
  await page.locator("select[aria-label=Outcome]").selectOption("changed");
  assert.match(await page.locator("main .lead[role=status]").innerText(), /4 entries, 4 right; before, 0/);
  await page.locator(".entry summary").first().click();
  assert.equal(await page.locator(".entry .columns > article").count(), 2);
  await page.waitForFunction(() => document.querySelectorAll(".entry .conversation").length === 2);
  await page.locator(".entry .action", { hasText: "The trajectory behind it" }).last().click();
  await page.waitForSelector("main[data-view=trajectory]:not([aria-busy])");
  assert.match(await page.locator("#crumbs").innerText(), /Entries/);
  await page.keyboard.press("u");
  await page.waitForSelector("main[data-view=evaluation]:not([aria-busy])");
  await visit(page, `${base}#list?run=qa-after`);
  assert.match(await page.locator("main .lead[role=status]").innerText(), /10 trajectories, 70 % right/);
  await context.close();
});

await check("a copy opens from disk, and filters there", async () => {
  const { page, wrong, context } = await open();
  const at = `file://${copy}`;
  for (const view of ["#runs", "#run?run=seed-0", "#health?run=seed-0", "#compare?runs=seed-0&runs=seed-1",
    "#pair?run=seed-0&other=seed-1", "#evaluation?run=bfcl", "#run?run=hostile"]) {
    await visit(page, at + view);
    assert.equal(await page.locator("main [role=alert]").count(), 0, view);
  }
  await visit(page, `${at}#list?run=seed-0&correct=false`);
  assert.match(await page.locator("main .lead[role=status]").innerText(), / 0 % right/);
  await page.locator("tr[data-row] a.open").first().click();
  await page.waitForSelector("main[data-view=trajectory]:not([aria-busy])");
  await page.locator("[data-show=tokens]").click();
  await page.waitForSelector(".token");
  await page.locator("text=Side by side").click();
  await page.waitForSelector("main[data-view=group]:not([aria-busy])");
  assert.equal(await page.evaluate(() => window.pwned), undefined);
  assert.deepEqual(wrong, []);
  await context.close();
});

await check("the report of a run shows tokens as the window does", async () => {
  const { page, wrong, context } = await open();
  await page.goto(`file://${process.env.REPORT}`);
  await page.locator(".group").first().evaluate((group) => { group.open = true; });
  await page.locator("[data-tokens]").first().click();
  await page.waitForSelector(".token-view .token.policy");
  await page.locator("[data-mode=logprob]").first().click();
  await page.waitForSelector(".token-view .token.heat");
  await page.locator(".token-view .tokens").first().focus();
  await page.keyboard.press("ArrowRight");
  assert.match(await page.locator(".token-view .about").first().innerText(), /place \d+/);
  assert.ok((await sideways(page)) <= 0);
  assert.deepEqual(wrong, []);
  await context.close();
});

await check("a page follows a real training without being loaded again", async () => {
  const { page, wrong, context } = await open();
  await page.goto(`${live}#runs`);
  await page.waitForSelector("main[data-view=runs]:not([aria-busy])");
  trainer = spawn("sh", ["-c", process.env.TRAIN], { stdio: "ignore" });
  const there = () => page.evaluate(async () => (await (await fetch("api/runs")).json()).runs.length > 0);
  for (let at = 0; at < 120 && !(await there()); at++) await page.waitForTimeout(500);
  await visit(page, `${live}#list?run=live`);
  await page.evaluate(() => { window.stays = true; });
  const counts = new Set();
  for (let at = 0; at < 300 && counts.size < 3; at++) {
    counts.add(await page.locator("main .lead[role=status]").innerText());
    await page.waitForTimeout(500);
  }
  assert.ok(counts.size >= 3, `only ${[...counts]}`);
  assert.equal(await page.evaluate(() => window.stays), true);
  assert.match(await page.locator("#state").innerText(), /running|finished/);
  assert.deepEqual(wrong, []);
  await context.close();
  return [...counts].join(" → ");
});

if (shots && trainer && trainer.exitCode === null) await new Promise((ended) => { trainer.on("exit", ended); });
trainer?.kill();

const mixed = shots ? await (await fetch(`${live}api/list?run=live&split=train&advantage=0.01..&calls=1..&sort=logprob`)).json() : null;
const row = mixed?.rows[0].row;
const PICTURES = [["runs", base, "#runs"], ["run", base, "#run?run=seed-0"], ["compare", base,
  "#compare?runs=seed-0&runs=seed-1&runs=seed-2&runs=slower&fold=1"], ["list", live, "#list?run=live"],
["trajectory", live, `#trajectory?run=live&row=${row}`], ["tokens", live, `#trajectory?run=live&row=${row}&show=tokens`],
["group", live, `#group?run=live&row=${row}`], ["health", live, "#health?run=live"], ["evaluation", base,
  "#evaluation?run=qa-after&other=qa-before"], ["hostile", base, "#trajectory?run=hostile&row=0"], ["set", base,
  "#dataset?run=set"]];

if (shots) {
  mkdirSync(shots, { recursive: true });
  for (const [name, from, view] of PICTURES) {
    for (const [suffix, options] of [["", {}], ...(["trajectory", "list"].includes(name) ? [["-phone", { viewport:
      { width: 390, height: 844 }, colorScheme: "dark" }]] : []), ...(name === "tokens" ? [["-dark", { colorScheme: "dark" }]]
      : [])]) {
      const { page, context } = await open(options);
      await visit(page, from + view);
      if (name === "tokens") {
        await page.locator("[data-mode=logprob]").click();
        await page.locator(".message, .tokens").first().focus();
        for (let at = 0; at < 400 && !/author\s+policy/.test(await page.locator(".about").innerText()); at++) {
          await page.keyboard.press("ArrowRight");
        }
        for (let at = 0; at < 12; at++) await page.keyboard.press("ArrowRight");
      }
      if (name === "evaluation") await page.locator(".entry summary").nth(2).click();
      await page.waitForTimeout(900);
      await page.screenshot({ path: `${shots}/window-${name}${suffix}.png` });
      await context.close();
    }
  }
}
await browser.close();
process.exit(failed ? 1 : 0);
