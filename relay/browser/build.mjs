// Build what the relay serves, from the sources in src/: a readable file and a minified one.
// `node build.mjs FOLDER` writes them to another folder than dist/.
import { mkdir, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';
import { minify } from 'terser';

const folder = process.argv[2] ?? 'dist';

const { outputFiles } = await build({
  entryPoints: ['src/relay-client.js'],
  outdir: folder,
  write: false,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  charset: 'utf8',
  banner: { js: '// Built from relay/browser/src, where the comments are' },
});
await mkdir(folder, { recursive: true });
for (const { path, text } of outputFiles) {
  const { code } = await minify(text, { module: true, ecma: 2020, compress: { passes: 3 } });
  await writeFile(path, text);
  await writeFile(path.replace(/js$/, 'min.js'), `${code}\n`);
}
