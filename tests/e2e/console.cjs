// Runs a script in a page of a real Chromium and prints what it writes to its console, a line each, until it is ended.
// Usage: console.cjs URL CHROMIUM SCRIPT
const { chromium } = require('playwright-core');
const fs = require('fs');

// Chromium gives up a page when a device or an address appears on the host, and the network that is to be cut has just been
// made: so it is asked again, 30 s long.
async function settle(page, url) {
  const end = Date.now() + 30_000;
  for (;;) {
    try {
      return await page.goto(url, { timeout: 10_000 });
    } catch (error) {
      if (Date.now() >= end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
}

async function main() {
  const [url, executablePath, script] = process.argv.slice(2);
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  const page = await browser.newPage();
  page.on('console', (message) => console.log(message.text()));
  await settle(page, url);
  await page.addScriptTag({ content: fs.readFileSync(script, 'utf-8') });
}

main().catch((error) => { console.error(error); process.exit(1); });
