// The README of the tarball. Its links into the checkout would lead nowhere there, so `npm pack` calls this program
// before and after: it writes a README.md that names the files instead, and puts the other one back.
import { readFile, rename, writeFile } from 'node:fs/promises';

const kept = '.README.md';

if (process.argv[2] === 'restore') await rename(kept, 'README.md');
else {
  const text = await readFile('README.md', 'utf8');
  await rename('README.md', kept);
  await writeFile('README.md', packed(text));
}

function packed(text) {
  return text
    .replace(/<!-- generated.*?<!-- \/generated -->/s, 'Files in `relay/` and `examples/` are in the checkout of the relay.')
    .replace(/\[([^\]]+)\]\((\.\.[^)#]*)(#[^)]*)?\)/g, (_, label, path) => {
      const file = new URL(path, 'file:///relay/browser/README.md').pathname.slice(1);
      return label.startsWith('`') ? label : `${label} (\`${file}\`)`;
    });
}
