import { type GgufTypeName, ggufType } from '../config/gguf-types.ts';
import type {
  GgufConversion,
  IntegerConversion,
  RecipeConversion,
} from '../config/release-quality.ts';
import { WeldlineError } from '../engine/errors.ts';
import type { ConversionStep, GgufStep } from './conversion-step.ts';

/**
 * The steps of a recipe's conversions, those that others are made of first.
 *
 * @throws WeldlineError `convert.needs-imatrix` for a GGUF type that llama.cpp does not make without
 *   an importance matrix, where the recipe has none
 */
export function planConversions({
  conversions,
  adapterIds,
}: {
  readonly conversions: readonly RecipeConversion[];
  readonly adapterIds: readonly string[];
}): readonly ConversionStep[] {
  return conversions.flatMap((conversion): readonly ConversionStep[] =>
    conversion.kind === 'gguf'
      ? [
          ...planGguf(conversion),
          ...(conversion.adapters ? adapterIds : []).map((adapter) => ({
            kind: 'gguf-adapter' as const,
            id: `gguf-adapter-${adapter}`,
            adapter,
          })),
        ]
      : [{ kind: conversion.kind, id: integerId(conversion), settings: conversion }],
  );
}

/** Weights of so many bits beside activations of 16, as vLLM and llm-compressor abbreviate it. */
function integerId({ kind, bits, groupSize }: IntegerConversion): string {
  return `${kind}-w${bits}a16-g${groupSize}`;
}

function planGguf(conversion: GgufConversion): readonly GgufStep[] {
  const { quantizations, from, imatrix, splitBytes } = conversion;
  const needy = quantizations.filter((type) => ggufType(type).needsImatrix);
  if (needy.length > 0 && imatrix === undefined) {
    throw new WeldlineError(
      'convert.needs-imatrix',
      `llama.cpp makes ${needy.join(', ')} with an importance matrix only. Give one in the recipe ` +
        '(imatrix: {file: PATH}), or text of your own to make one of (imatrix: {calibration: PATH}).',
    );
  }
  const isLossless = (type: GgufTypeName): boolean => ggufType(type).loss === 'lossless';
  const needsSource = quantizations.some((type) => !isLossless(type));
  const types = [...new Set(needsSource ? [from, ...quantizations] : quantizations)];
  return types
    .toSorted((one, other) => Number(isLossless(other)) - Number(isLossless(one)))
    .map((type) => {
      const wanted = quantizations.includes(type);
      return {
        kind: 'gguf',
        id: ggufId(type),
        type,
        ...(isLossless(type)
          ? {}
          : { after: ggufId(from), ...(imatrix === undefined ? {} : { imatrix }) }),
        ...(splitBytes === undefined || !wanted ? {} : { splitBytes }),
        wanted,
      };
    });
}

function ggufId(type: GgufTypeName): string {
  return `gguf-${type.toLowerCase()}`;
}
