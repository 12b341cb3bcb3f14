// Opens the original's page in a real Chromium and answers questions about it: one JSON line in, one out.
const { chromium } = require('playwright-core');
const readline = require('readline');

async function main() {
  const [url, executablePath] = process.argv.slice(2);
  const browser = await chromium.launch({
    executablePath,
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update',
      '--disable-sync', '--no-first-run', '--disable-quic'],
  });
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  // The page asks a CDN for its diagram library, which is not part of what is tested here.
  await page.route((address) => !['localhost', '127.0.0.1'].includes(address.hostname), (route) => route.abort());
  await page.goto(url, { waitUntil: 'domcontentloaded' });
  console.log(JSON.stringify({ ready: true }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const question = JSON.parse(line);
    if (question.ask === 'cards') {
      const cards = await page.$$eval('.machine-card[data-machine]', (cards) => cards.map((card) =>
        [card.getAttribute('data-machine'), (card.querySelector('.info-value') || {}).textContent]));
      console.log(JSON.stringify(Object.fromEntries(cards)));
    } else if (question.ask === 'log') {
      console.log(JSON.stringify(await page.$$eval('#activity-log .message', (rows) => rows.map((row) => row.textContent))));
    } else if (question.ask === 'errors') {
      console.log(JSON.stringify(errors));
    } else if (question.ask === 'screenshot') {
      await page.screenshot({ path: question.path });
      console.log(JSON.stringify({ path: question.path }));
    } else {
      break;
    }
  }
  await browser.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
