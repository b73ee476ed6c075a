/**
 * Elementary functions with the same bits everywhere. JavaScript leaves the last bits of Math.exp, log, sin, cos and pow to the
 * engine, and Node's differ between x64 and arm64 and between its releases. What is trained on, learning rates and probabilities
 * must not depend on that, so they take these, products in place of `**`, and Math.sqrt, which is rounded correctly.
 *
 * The algorithms are fdlibm's, below 1 ulp, as in native/core/elementary.h: additions, multiplications and divisions, each of which
 * JavaScript rounds by itself.
 */

/** The two words of a float64. */
const real = new Float64Array(1);
const words = new Uint32Array(real.buffer);
const [LOW, HIGH] = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? [0, 1] : [1, 0];

/** log 2 as a sum, the first part of which times an exponent is exact. */
const LOG_2 = [0.6931471803691238, 1.9082149292705877e-10] as const;
const EXP = [
  0.16666666666666602, -0.0027777777777015593, 0.00006613756321437934, -0.0000016533902205465252, 4.1381367970572385e-8,
] as const;
/** Beyond these, infinity and 0. */
const [LARGEST, SMALLEST] = [709.782712893384, -745.1332191019411];

/**
 * e^x: for x = k log 2 + r, 2^k e^r with e^r = 1 + r + r c / (2 - c), where c = r - r^2 P(r^2), P being a polynomial of degree 4.
 */
export function exponential(x: number): number {
  if (!(x <= LARGEST)) return x * Number.POSITIVE_INFINITY;
  if (x < SMALLEST) return 0;
  const k = Math.abs(x) > LOG_2[0] / 2 ? Math.trunc(Math.LOG2E * x + (x < 0 ? -0.5 : 0.5)) : 0;
  const high = x - k * LOG_2[0];
  const low = k * LOG_2[1];
  const r = high - low;
  const t = r * r;
  const c = r - t * (EXP[0] + t * (EXP[1] + t * (EXP[2] + t * (EXP[3] + t * EXP[4]))));
  if (k === 0) return 1 - ((r * c) / (c - 2) - r);
  const y = 1 - (low - (r * c) / (2 - c) - high);
  return k < -1000 ? y * powerOf2(k + 1000) * powerOf2(-1000) : k > 1023 ? y * 2 * powerOf2(k - 1) : y * powerOf2(k);
}

function powerOf2(exponent: number): number {
  words[LOW] = 0;
  words[HIGH] = (exponent + 1023) << 20;
  return real[0]!;
}

const LOG = [
  0.6666666666666735, 0.3999999999940942, 0.2857142874366239, 0.22222198432149784, 0.1818357216161805, 0.15313837699209373,
  0.14798198605116586,
] as const;
const FRACTION = 0xfffff;
const EXPONENT_OF_1 = 0x3ff00000;

/** The natural logarithm of a positive, normal number, as native/core/elementary.h says; NaN and infinity stay what they are. */
export function logarithm(x: number): number {
  if (!(x < Number.POSITIVE_INFINITY)) return x;
  real[0] = x;
  const high = words[HIGH]!;
  const fraction = high & FRACTION;
  const above = (fraction + 0x95f64) & (FRACTION + 1);
  const k = (high >> 20) - 1023 + (above >> 20);
  words[HIGH] = fraction | (above ^ EXPONENT_OF_1);
  const f = real[0]! - 1;
  if ((FRACTION & (2 + fraction)) < 3) {
    if (f === 0) return k * LOG_2[0] + k * LOG_2[1];
    const r = f * f * (0.5 - 0.3333333333333333 * f);
    return k === 0 ? f - r : k * LOG_2[0] - (r - k * LOG_2[1] - f);
  }
  const s = f / (2 + f);
  const z = s * s;
  const w = z * z;
  const r = z * (LOG[0] + w * (LOG[2] + w * (LOG[4] + w * LOG[6]))) + w * (LOG[1] + w * (LOG[3] + w * LOG[5]));
  if (((fraction - 0x6147a) | (0x6b851 - fraction)) > 0) {
    const half = 0.5 * f * f;
    return k === 0 ? f - (half - s * (half + r)) : k * LOG_2[0] - (half - (s * (half + r) + k * LOG_2[1]) - f);
  }
  return k === 0 ? f - s * (f - r) : k * LOG_2[0] - (s * (f - r) - k * LOG_2[1] - f);
}

/** pi / 2 in two pieces of 33 bits, which integers below 2^20 multiply exactly, and the rest. */
const HALF_PI = [1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21] as const;
/** Of an angle, for which these pieces suffice. */
const LARGEST_ANGLE = 2 ** 20;
const SIN = [
  -0.16666666666666632, 0.00833333333332249, -0.0001984126982985795, 0.0000027557313707070068, -2.5050760253406863e-8,
  1.58969099521155e-10,
] as const;
const COS = [
  0.0416666666666666, -0.001388888888887411, 0.00002480158728947673, -2.7557314351390663e-7, 2.087572321298175e-9,
  -1.1359647557788195e-11,
] as const;

/** The sine of (x + `quarters` pi / 2), |x| up to 2^20, NaN beyond: polynomials on [-pi/4, pi/4], the angle reduced to a sum of two numbers. */
function sineOf(x: number, quarters: number): number {
  if (!(Math.abs(x) <= LARGEST_ANGLE)) return Number.NaN;
  const n = Math.round(x / (Math.PI / 2));
  const first = x - n * HALF_PI[0];
  const second = n * HALF_PI[1];
  const third = first - second;
  const rest = n * HALF_PI[2] - (first - third - second);
  const a = third - rest;
  const b = third - a - rest;

  const z = a * a;
  const quarter = (n + quarters) & 3;
  let value: number;
  if ((quarter & 1) === 0) {
    const r = SIN[1] + z * (SIN[2] + z * (SIN[3] + z * (SIN[4] + z * SIN[5])));
    const cube = z * a;
    value = a - (z * (0.5 * b - cube * r) - b - cube * SIN[0]);
  } else {
    const r = z * (COS[0] + z * (COS[1] + z * (COS[2] + z * (COS[3] + z * (COS[4] + z * COS[5])))));
    const half = 0.5 * z;
    const one = 1 - half;
    value = one + (1 - one - half + (z * r - a * b));
  }
  return (quarter & 2) === 0 ? value : -value;
}

export const sine = (x: number): number => sineOf(x, 0);
export const cosine = (x: number): number => sineOf(x, 1);

/** The length of (x, y), for values whose squares neither overflow nor vanish. */
export const lengthOf = (x: number, y: number): number => Math.sqrt(x * x + y * y);
