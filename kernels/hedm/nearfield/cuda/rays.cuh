// Where the reflections of an orientation are seen, and whether these pixels are lit: `nearfield/rays.py`, `search.py`.
//
// Whatever is counted is a whole number, so that no order of lanes, warps or blocks changes it. Whatever is not is worked
// out by sums, products, quotients and roots that are rounded one by one in the order of `nearfield/rays.py` and
// `nearfield/refine.py`: sources that include this have to be compiled without fused operations. So all counts are those of
// the CPU, and so are the orientations that have been climbed to.
//
// Compiled with no header but this one, so any NVRTC will do, and with these given by the host: DISTANCES; FARTHEST steps
// to the edge of a plateau; DIRECTIONS of turns; MARGIN, pixels by which single precision may move a spot; WARPS of a block.
// Offsets into bits, spots and entries are of 64 bits.

#define ALL 0xFFFFFFFFu
#define WARP 32
#define PI 3.141592653589793

// What `search.py` packs: of `setup.Optics`, with the arc tangent's table and the corners of the grid.
struct Optics {
  double wavelength, beam[3], start, step, period, z, eta[4], tangents[5], corners[4][2], panels[DISTANCES][12];
};

struct Sizes {
  int rows, columns, frames, shift, block_shift, high, words, block_high, block_words, reflections, points;
};

struct Scene {
  const Optics &optics;
  const Sizes &sizes;
  const double *g0;
  const unsigned *bits, *blocks;
  const unsigned char *present;
};

__device__ Scene scene_of(const double *optics, const int *sizes, const double *g0, const unsigned *bits,
                          const unsigned *blocks, const unsigned char *present) {
  return {*(const Optics *)optics, *(const Sizes *)sizes, g0, bits, blocks, present};
}

// Of all lanes, for all lanes.
template <class T> __device__ T sum_of_warp(T value) {
  for (int other = WARP / 2; other; other /= 2)
    value += __shfl_xor_sync(ALL, value, other);
  return value;
}

// ---- spots: `rays.py`

// (row, its slopes in x and y, column, its slopes) at each distance, half a pixel more than the centre's.
struct Spot {
  float image[DISTANCES][6];
  int frame;
  bool whole; // all of the grid falls on the detector
};

__device__ float row_at(const float *image, float x, float y) { return image[0] + image[1] * x + image[2] * y; }
__device__ float column_at(const float *image, float x, float y) { return image[3] + image[4] * x + image[5] * y; }

// `arcs.angle_of`
__device__ double angle_of(double sine, double cosine, const double *tangents) {
  double a = fabs(cosine), b = fabs(sine), x = a > b ? a : b, y = a > b ? b : a;
  int nearest = (y > 0.0985 * x) + (y > 0.3033 * x) + (y > 0.5345 * x) + (y > 0.8207 * x);
  double t = (y - tangents[nearest] * x) / (x + tangents[nearest] * y), s = t * t;
  double series = 1.0 / 7.0 - s * (1.0 / 9.0 - s * (1.0 / 11.0 - s / 13.0));
  series = t * (1.0 - s * (1.0 / 3.0 - s * (1.0 / 5.0 - s * series)));
  double angle = nearest * PI / 16.0 + series;
  if (b > a)
    angle = 0.5 * PI - angle;
  if (cosine < 0)
    angle = PI - angle;
  return sine < 0 ? -angle : angle;
}

// Rows or columns, the `what`th, of one distance; false when all of the grid misses the detector.
__device__ bool map_axis(const Optics &optics, const double *p, int what, int count, const double *k, double along,
                         double cosine, double sine, Spot &spot, float *image) {
  const double *dual = p + 3 + 3 * what;
  double part = (dual[0] * k[0] + dual[1] * k[1] + dual[2] * k[2]) / along;
  double wx = dual[0] - p[9] * part, wy = dual[1] - p[10] * part, wz = dual[2] - p[11] * part;
  double at = (optics.z - p[2]) * wz - p[0] * wx - p[1] * wy + 0.5;
  double in_x = cosine * wx + sine * wy, in_y = cosine * wy - sine * wx, low = 0, high = 0;
  for (int n = 0; n < 4; n++) {
    double place = at + in_x * optics.corners[n][0] + in_y * optics.corners[n][1];
    low = n == 0 || place < low ? place : low;
    high = n == 0 || place > high ? place : high;
  }
  if (high < -MARGIN || low >= count + MARGIN)
    return false;
  if (low < MARGIN || high >= count - MARGIN)
    spot.whole = false;
  image[0] = (float)at;
  image[1] = (float)in_x;
  image[2] = (float)in_y;
  return true;
}

// The spot of a reflection as it meets Bragg's law for the first or the second time; false when the detector sees none.
__device__ bool trace(const Scene &scene, const double *u, int reflection, int side, Spot &spot) {
  const Optics &o = scene.optics;
  const double *beam = o.beam, *g = scene.g0 + 3 * reflection;
  double gx = u[0] * g[0] + u[1] * g[1] + u[2] * g[2];
  double gy = u[3] * g[0] + u[4] * g[1] + u[5] * g[2];
  double gz = u[6] * g[0] + u[7] * g[1] + u[8] * g[2];
  double kz = beam[2] + o.wavelength * gz;
  double v = -0.5 * o.wavelength * (gx * gx + gy * gy + gz * gz) - gz * beam[2];
  double a = gx * beam[0] + gy * beam[1], c = gx * beam[1] - gy * beam[0];
  double square = a * a + c * c, left = square - v * v;
  if (left <= 0)
    return false;
  double root = sqrt(left), q = side ? -root : root;
  double cosine = (a * v - c * q) / square, sine = (c * v + a * q) / square;
  double ky = beam[1] + o.wavelength * (gx * sine + gy * cosine), across = fabs(ky), up = fabs(kz);
  if (across * o.eta[0] < up * o.eta[1] || across * o.eta[2] > up * o.eta[3])
    return false;
  double turn = (angle_of(sine, cosine, o.tangents) - o.start) / o.step;
  turn -= floor(turn / o.period) * o.period;
  spot.frame = (int)turn;
  if (spot.frame >= scene.sizes.frames)
    return false;
  double k[3] = {beam[0] + o.wavelength * (gx * cosine - gy * sine), ky, kz};
  spot.whole = true;
  for (int d = 0; d < DISTANCES; d++) {
    const double *p = o.panels[d];
    double along = p[9] * k[0] + p[10] * k[1] + p[11] * k[2];
    if ((p[9] * p[0] + p[10] * p[1] + p[11] * p[2]) * along <= 0)
      return false;
    if (!map_axis(o, p, 0, scene.sizes.rows, k, along, cosine, sine, spot, spot.image[d]) ||
        !map_axis(o, p, 1, scene.sizes.columns, k, along, cosine, sine, spot, spot.image[d] + 3))
      return false;
  }
  return true;
}

// ---- bits: `search.py`

// Whether a point's image lies on a spot at every distance that has the frame; it has to lie on the detector.
__device__ bool is_lit(const Scene &scene, const Spot &spot, float x, float y) {
  const Sizes &sizes = scene.sizes;
  for (int d = 0; d < DISTANCES; d++) {
    int image = d * sizes.frames + spot.frame;
    if (!scene.present[image])
      continue;
    int row = (int)row_at(spot.image[d], x, y) >> sizes.shift;
    int column = (int)column_at(spot.image[d], x, y) >> sizes.shift;
    unsigned word = scene.bits[((long long)image * sizes.high + row) * sizes.words + (column >> 5)];
    if (!(word >> (column & 31) & 1u))
      return false;
  }
  return true;
}

__device__ bool is_on(const Scene &scene, const Spot &spot, float x, float y) {
  for (int d = 0; d < DISTANCES; d++) {
    float row = row_at(spot.image[d], x, y), column = column_at(spot.image[d], x, y);
    if (row < 0 || row >= scene.sizes.rows || column < 0 || column >= scene.sizes.columns)
      return false;
  }
  return true;
}

__device__ void count_point(const Scene &scene, const Spot &spot, float x, float y, int &hits, int &counted) {
  if (spot.whole || is_on(scene, spot, x, y)) {
    counted++;
    hits += is_lit(scene, spot, x, y);
  }
}

__device__ bool any_lit(const unsigned *blocks, int words, int shift, int top, int bottom, int left, int right) {
  int first = left >> shift, last = right >> shift;
  for (int row = top >> shift; row <= bottom >> shift; row++)
    for (int word = first >> 5; word <= last >> 5; word++) {
      int low = max(first - word * 32, 0), high = min(last - word * 32, 31);
      if (blocks[(long long)row * words + word] & (ALL >> (31 - (high - low))) << low)
        return true;
    }
  return false;
}
