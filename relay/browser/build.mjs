// Build what the relay serves, from the sources in src/: readable files, and minified ones.
// `node build.mjs FOLDER` writes them to another folder than dist/.
import { mkdir, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';
import { minify } from 'terser';

const folder = process.argv[2] ?? 'dist';

await mkdir(folder, { recursive: true });
await make('relay-client.js', 'src/relay-client.js', ['./relay-session.js']);
await make('relay-session.js', 'src/relay-session.js', []);
await make('relay-react.js', 'src/react.js', ['react', './relay-client.js']);

async function make(name, source, external) {
  const { outputFiles } = await build({
    entryPoints: [source],
    external,
    write: false,
    bundle: true,
    format: 'esm',
    target: 'es2022',
    charset: 'utf8',
    banner: { js: '// Built from relay/browser/src, where the comments are' },
  });
  const [{ text }] = outputFiles;
  await writeFile(`${folder}/${name}`, text);
  const small = text.replace(/\.\/relay-(\w+)\.js/, './relay-$1.min.js');
  // Without `conditionals`, because `if` repeats itself, which gzip likes
  const compress = { passes: 3, directives: false, unsafe_arrows: true, pure_getters: true, keep_fargs: false, conditionals: false };
  const { code } = await minify(small, { module: true, ecma: 2020, compress });
  await writeFile(`${folder}/${name.replace(/js$/, 'min.js')}`, `${code}\n`);
}
