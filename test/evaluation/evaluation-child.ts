/**
 * Evaluates a candidate in a process of its own, which a test kills. Its argument is the step, the
 * suite and the rest as JSON.
 */

import type { EvaluateCandidateOptions } from '../../evaluation/evaluate-candidate.ts';
import { evaluateCandidate } from '../../evaluation/evaluate-candidate.ts';

const options = JSON.parse(process.argv[2] ?? '') as EvaluateCandidateOptions;
await evaluateCandidate({ ...options, signal: new AbortController().signal });
