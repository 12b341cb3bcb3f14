// Runs a script in a page of a real Chromium and prints what it writes to its console, a line each, until it is ended.
// Usage: console.cjs URL CHROMIUM SCRIPT
const { chromium } = require('playwright-core');
const fs = require('fs');

async function main() {
  const [url, executablePath, script] = process.argv.slice(2);
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu'] });
  const page = await browser.newPage();
  page.on('console', (message) => console.log(message.text()));
  await page.goto(url);
  await page.addScriptTag({ content: fs.readFileSync(script, 'utf-8') });
}

main().catch((error) => { console.error(error); process.exit(1); });
