/** Of the normal distribution: 2.5 % lie above, so that an interval to both sides holds 95 %. */
export const Z_CONFIDENCE = 1.959963984540054;

/** 80 % lie below. */
export const Z_POWER = 0.8416212335729143;
