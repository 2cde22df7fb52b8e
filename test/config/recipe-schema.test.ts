import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { recipeJsonSchema, type SchemaNode } from '../../config/recipe-schema.ts';

describe('recipe.schema.json', () => {
  it('is what the schema generates (npm run schema writes it)', async () => {
    const file = new URL('../../config/recipe.schema.json', import.meta.url);
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual(
      JSON.parse(JSON.stringify(recipeJsonSchema())),
    );
  });

  it('describes every key, because errors are made from the descriptions', () => {
    const undescribed: string[] = [];
    const look = (node: SchemaNode, path: string) => {
      if (!node.description) undescribed.push(path);
      if (node.items) look(node.items, `${path}[]`);
      for (const [key, child] of Object.entries(node.properties ?? {}))
        look(child, `${path}.${key}`);
    };
    look(recipeJsonSchema(), 'recipe');
    expect(undescribed).toEqual([]);
  });
});
