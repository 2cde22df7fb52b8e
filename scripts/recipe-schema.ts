import { writeFile } from 'node:fs/promises';
import { recipeJsonSchema } from '../config/recipe-schema.ts';

const schemaUrl = new URL('../config/recipe.schema.json', import.meta.url);
await writeFile(schemaUrl, `${JSON.stringify(recipeJsonSchema(), null, 2)}\n`);
console.log('wrote config/recipe.schema.json');
