/**
 * Puts messages and stack traces of failures into payloads, so that the payload codec encrypts them as
 * it does all else. CommonJS without types: the SDK loads it by `require`, and webpack as it is.
 */
const { DefaultFailureConverter } = require('@temporalio/common');

module.exports.failureConverter = new DefaultFailureConverter({ encodeCommonAttributes: true });
