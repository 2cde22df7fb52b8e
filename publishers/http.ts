import { type HttpRequest, httpRequest } from '../remote/http.ts';
import { codeOfStatus } from './publisher.ts';

/** {@link httpRequest} with the errors of publishers: `publish.*`. */
export function request(options: Omit<HttpRequest, 'codeOf'>): Promise<Response> {
  return httpRequest({ ...options, codeOf: codeOfStatus });
}
