// Which orientation explains most reflections at a voxel: the search and the refinement of the near field.
//
//   trace_spots    orientations        to spots        what the voxels of the grid may hit, as an affine map of the place
//   screen_tiles   spots, tiles        to entries      each warp's best orientations of the voxels of a tile
//   climb_voxels   starts              to orientations the best near any of a voxel's starts
//   spread_voxels  a map               to orientations those of neighbours that are better here, climbed from
//
// Whatever is counted is a whole number, so that no order of lanes, warps or blocks changes it. Whatever is not is worked
// out by sums, products, quotients and roots that are rounded one by one in the order of `nearfield/rays.py` and
// `nearfield/refine.py`: the source has to be compiled without fused operations. So all counts are those of the CPU, and so
// are the orientations that have been climbed to.
//
// Compiled with no header, so any NVRTC will do, and with these given by the host: DISTANCES; FARTHEST steps to the edge of
// a plateau; DIRECTIONS of turns; MARGIN, pixels by which single precision may move a spot; WARPS of a block. Offsets
// into bits, spots and entries are of 64 bits.

#define ALL 0xFFFFFFFFu
#define WARP 32
#define PI 3.141592653589793
#define SHARE 40 // bits of a confidence made a whole number

typedef unsigned long long Code;

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

__device__ Code most_of_warp(Code value) {
  for (int other = WARP / 2; other; other /= 2) {
    Code their = __shfl_xor_sync(ALL, value, other);
    value = their > value ? their : value;
  }
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

// What a box of voxels can make of a spot: nothing of it falls on the detector (0), all of it beside what is lit (MISSED),
// or it has to be seen point by point (POSSIBLE).
#define POSSIBLE 1u
#define MISSED (1u << 16)

struct Box {
  double x, half_x, y, half_y;
};

__device__ unsigned outcome(const Scene &scene, const Spot &spot, const Box &box) {
  const Sizes &sizes = scene.sizes;
  bool inside = true, lit = true;
  for (int d = 0; d < DISTANCES; d++) {
    const float *a = spot.image[d];
    double row = a[0] + a[1] * box.x + a[2] * box.y, column = a[3] + a[4] * box.x + a[5] * box.y;
    double rows = fabs((double)a[1]) * box.half_x + fabs((double)a[2]) * box.half_y + MARGIN;
    double columns = fabs((double)a[4]) * box.half_x + fabs((double)a[5]) * box.half_y + MARGIN;
    if (row + rows < 0 || row - rows >= sizes.rows || column + columns < 0 || column - columns >= sizes.columns)
      return 0;
    if (row - rows < 0 || row + rows >= sizes.rows || column - columns < 0 || column + columns >= sizes.columns)
      inside = false;
    int image = d * sizes.frames + spot.frame;
    if (lit && scene.present[image]) {
      int top = row - rows < 0 ? 0 : (int)(row - rows), left = column - columns < 0 ? 0 : (int)(column - columns);
      int bottom = row + rows >= sizes.rows ? sizes.rows - 1 : (int)(row + rows);
      int right = column + columns >= sizes.columns ? sizes.columns - 1 : (int)(column + columns);
      const unsigned *blocks = scene.blocks + (long long)image * sizes.block_high * sizes.block_words;
      lit = any_lit(blocks, sizes.block_words, sizes.block_shift, top, bottom, left, right);
    }
  }
  return lit || !inside ? POSSIBLE : MISSED;
}

// A warp for each orientation: its spots that some voxel of the grid may hit, in the order of reflections, up to `most`,
// and how many all of them miss. `frames` have the lowest bit set where all of the grid falls on the detector.
extern "C" __global__ void trace_spots(const double *optics, const int *sizes, const double *g0, const unsigned *bits,
                                       const unsigned *blocks, const unsigned char *present, const double *orientations,
                                       int count, int most, int *frames, float *traced, int *counts, int *missed) {
  Scene scene = scene_of(optics, sizes, g0, bits, blocks, present);
  int lane = threadIdx.x % WARP, n = blockIdx.x * WARPS + threadIdx.x / WARP;
  if (n >= count)
    return; // the whole warp, and no barrier of a block comes
  const double(*c)[2] = scene.optics.corners;
  Box box = {0.5 * (c[0][0] + c[3][0]), 0.5 * (c[3][0] - c[0][0]), 0.5 * (c[0][1] + c[3][1]), 0.5 * (c[3][1] - c[0][1])};
  long long begin = (long long)n * most;
  int found = 0;
  unsigned dead = 0;
  for (int first = 0; first < 2 * scene.sizes.reflections; first += WARP) {
    int item = first + lane;
    Spot spot;
    unsigned what = 0;
    if (item < 2 * scene.sizes.reflections && trace(scene, orientations + 9LL * n, item / 2, item % 2, spot))
      what = outcome(scene, spot, box);
    unsigned there = __ballot_sync(ALL, what == POSSIBLE);
    if (what == POSSIBLE) {
      long long place = begin + found + __popc(there & ((1u << lane) - 1));
      frames[place] = 2 * spot.frame + spot.whole;
      for (int d = 0; d < DISTANCES; d++)
        for (int m = 0; m < 6; m++)
          traced[(place * DISTANCES + d) * 6 + m] = spot.image[d][m];
    }
    found += __popc(there);
    dead += what == MISSED;
  }
  dead = sum_of_warp(dead);
  if (lane == 0) {
    counts[n] = found;
    missed[n] = dead;
  }
}

// ---- search

// Whether so many of so many are at least a confidence, given as its first SHARE bits. Since less than 2^(SHARE / 2) are
// counted, no two confidences have the same bits.
__device__ bool at_least(Code confidence, Code hits, Code counted) { return hits << SHARE >= confidence * counted; }

struct Entry {
  int which, hits, counted;
};

// `search._enter`: the last of the `keep` entries falls out. False when there is no place for it.
__device__ bool enter(Entry *entries, int keep, Entry one) {
  int place = keep;
  for (; one.hits && place > 0; place--) {
    const Entry &other = entries[place - 1];
    long long better = (long long)one.hits * other.counted - (long long)other.hits * one.counted;
    if (better < 0 || (better == 0 && one.which > other.which))
      break;
  }
  if (place == keep || !one.hits)
    return false;
  for (int n = keep - 1; n > place; n--)
    entries[n] = entries[n - 1];
  entries[place] = one;
  return true;
}

__device__ Spot spot_at(const int *frames, const float *traced, long long place) {
  Spot spot;
  spot.frame = frames[place] >> 1;
  spot.whole = frames[place] & 1;
  for (int d = 0; d < DISTANCES; d++)
    for (int m = 0; m < 6; m++)
      spot.image[d][m] = traced[(place * DISTANCES + d) * 6 + m];
  return spot;
}

// A warp for each tile and each of the parts of the orientations, which are in turn those of one part after the other. It
// has entries of its own, shape (parts, voxels, keep), and shares with the others of its tile how good an orientation must
// at least be, `least`, which only grows: to see it late costs time and changes nothing, since an orientation is left out
// only where `keep` others are better for certain. `bounds`, shape (tiles, parts, each), is scratch: of each orientation
// (confidence at most, spots that are possible, spots that are missed), of 32, 16 and 16 bits.
//
// `x` and `y` are of shape (points, voxels). Lanes are voxels; where a tile has few of them, several lanes share one
// and take its spots in turn.
extern "C" __global__ void screen_tiles(const double *optics, const int *sizes, const double *g0, const unsigned *bits,
                                        const unsigned *blocks, const unsigned char *present, const int *frames,
                                        const float *traced, const int *counts, const int *dead, int count, int most,
                                        int before, const float *x, const float *y, int voxels, const int *starts,
                                        const double *boxes, int tiles, int parts, int each, int keep, Code *bounds,
                                        Code *least, int *entries) {
  Scene scene = scene_of(optics, sizes, g0, bits, blocks, present);
  int lane = threadIdx.x % WARP, points = scene.sizes.points;
  long long warp = (long long)blockIdx.x * WARPS + threadIdx.x / WARP;
  if (warp >= (long long)tiles * parts)
    return; // the whole warp, and no barrier of a block comes
  int tile = (int)(warp / parts), part = (int)(warp % parts), begin = starts[tile], size = starts[tile + 1] - begin;
  Box box = {boxes[4 * tile], boxes[4 * tile + 1], boxes[4 * tile + 2], boxes[4 * tile + 3]};
  Code *mine = bounds + warp * each;
  const volatile Code *needed = least; // other warps write to it
  int amount = 0;
  for (int n = part; n < count; n += parts, amount++) {
    unsigned found = 0;
    for (int k = lane; k < counts[n]; k += WARP)
      found += outcome(scene, spot_at(frames, traced, (long long)n * most + k), box);
    found = sum_of_warp(found);
    if (lane == amount % WARP) {
      Code possible = found & 0xFFFF, missed = (found >> 16) + dead[n];
      mine[amount] = possible ? (possible << 31) / (possible + missed) << 32 | possible << 16 | missed : 0;
    }
  }

  int wide = 1;
  while (wide < WARP && wide < size)
    wide *= 2;
  int share = lane / wide, shares = WARP / wide;
  for (;;) {
    Code bound = 0;
    int at = 0;
    for (int m = lane; m < amount; m += WARP)
      if (mine[m] > bound) {
        bound = mine[m];
        at = m;
      }
    Code best = most_of_warp(bound);
    if (best == 0)
      return;
    unsigned holders = __ballot_sync(ALL, bound == best);
    int holder = __popc((holders & -holders) - 1);
    at = __shfl_sync(ALL, at, holder);
    if (lane == holder)
      mine[at] = 0;
    int n = part + at * parts, possible = best >> 16 & 0xFFFF, missed = best & 0xFFFF;
    bool some = false;
    for (int voxel = begin + lane; voxel < begin + size; voxel += WARP)
      some |= at_least(needed[voxel], possible, possible + missed);
    if (!__ballot_sync(ALL, some))
      return; // nor can any that is left

    for (int first = begin; first < begin + size; first += wide) {
      int voxel = first + lane % wide, hits = 0, counted = 0, left = possible;
      bool alive = voxel < begin + size;
      Code limit = __shfl_sync(ALL, alive ? needed[voxel] : 0, lane % wide); // one for all that share a voxel
      for (int k = 0; k < counts[n] && left; k += WARP) {
        unsigned what = 0;
        if (k + lane < counts[n])
          what = outcome(scene, spot_at(frames, traced, (long long)n * most + k + lane), box);
        unsigned todo = __ballot_sync(ALL, what == POSSIBLE);
        left -= __popc(todo);
        for (int number = 0; todo; number++, todo &= todo - 1) {
          if (!alive || number % shares != share)
            continue;
          Spot spot = spot_at(frames, traced, (long long)n * most + k + __popc((todo & -todo) - 1));
          for (int p = 0; p < points; p++)
            count_point(scene, spot, x[(long long)p * voxels + voxel], y[(long long)p * voxels + voxel], hits, counted);
        }
        int all_hits = hits, all_counted = counted;
        for (int other = wide; other < WARP; other *= 2) {
          all_hits += __shfl_xor_sync(ALL, all_hits, other);
          all_counted += __shfl_xor_sync(ALL, all_counted, other);
        }
        int more = left * points;
        alive = alive && at_least(limit, all_hits + more, all_counted + more + missed * points);
        if (left == 0) {
          hits = all_hits;
          counted = all_counted;
        }
        if (!__ballot_sync(ALL, alive))
          break;
      }
      if (alive && share == 0) {
        Entry *own = (Entry *)entries + ((long long)part * voxels + voxel) * keep;
        if (enter(own, keep, {before + n, hits, counted + missed * points}) && own[keep - 1].which >= 0)
          atomicMax(&least[voxel], ((Code)own[keep - 1].hits << SHARE) / own[keep - 1].counted);
      }
    }
  }
}

// ---- refinement: `refine.py`

// What a warp looks up in turn: the spots of some reflections, of which not all have one.
struct Room {
  Spot spots[WARP];
};

struct Counts {
  int hits, counted;

  // `search.py` compares confidences so
  __device__ bool above(Counts other) const {
    return (long long)hits * other.counted > (long long)other.hits * counted;
  }
};

struct Matrix {
  double of[9];
};

// What a warp works at: one voxel.
struct Place {
  const Scene &scene;
  const float *x, *y;
  Room &room;
  int lane;
};

// `search.score`, by all lanes for all lanes: lanes are reflections first, and then points of their spots.
__device__ Counts score(const Place &place, const Matrix &u) {
  const Scene &scene = place.scene;
  int points = scene.sizes.points, hits = 0, counted = 0;
  for (int first = 0; first < 2 * scene.sizes.reflections; first += WARP) {
    int item = first + place.lane;
    Spot spot;
    bool there = item < 2 * scene.sizes.reflections && trace(scene, u.of, item / 2, item % 2, spot);
    unsigned found = __ballot_sync(ALL, there);
    if (there)
      place.room.spots[__popc(found & ((1u << place.lane) - 1))] = spot;
    __syncwarp();
    for (int n = place.lane; n < __popc(found) * points; n += WARP)
      count_point(scene, place.room.spots[n / points], place.x[n % points], place.y[n % points], hits, counted);
    __syncwarp(); // before others take their places
  }
  return {sum_of_warp(hits), sum_of_warp(counted)};
}

// `refine.turned`
__device__ Matrix turned(const Matrix &u, const double *turn) {
  double x = turn[0], y = turn[1], z = turn[2], first = turn[3], second = turn[4];
  Matrix made;
  for (int n = 0; n < 3; n++) {
    double a = u.of[n], b = u.of[3 + n], c = u.of[6 + n];
    double p = y * c - z * b, q = z * a - x * c, r = x * b - y * a;
    made.of[n] = a + first * p + second * (y * r - z * q);
    made.of[3 + n] = b + first * q + second * (z * p - x * r);
    made.of[6 + n] = c + first * r + second * (x * q - y * p);
  }
  return made;
}

// `refine.Turns`
struct Turns {
  const double *tried, *aside, *middles;
  int levels;
};

// `refine._climb`
__device__ Counts climb(const Place &place, Matrix &u, Counts now, const Turns &turns, bool centre) {
  for (int level = 0; level < turns.levels;) {
    Matrix best = u;
    bool better = false;
    for (int n = 0; n < DIRECTIONS; n++) {
      Matrix trial = turned(u, turns.tried + 5 * (level * DIRECTIONS + n));
      Counts found = score(place, trial);
      if (found.above(now)) {
        now = found;
        best = trial;
        better = true;
      }
    }
    u = best;
    level += !better;
  }
  for (int axis = 0; centre && axis < 3; axis++) {
    int reach[2] = {0, 0};
    for (int side = 0; side < 2; side++)
      for (int n = 1; n <= FARTHEST; n++) {
        Matrix trial = turned(u, turns.aside + 5 * ((side * (FARTHEST + 1) + n) * 3 + axis));
        if (now.above(score(place, trial)))
          break;
        reach[side] = n;
      }
    Matrix trial = turned(u, turns.middles + 5 * ((reach[0] * (FARTHEST + 1) + reach[1]) * 3 + axis));
    Counts found = score(place, trial);
    if (!now.above(found)) {
      now = found;
      u = trial;
    }
  }
  return now;
}

__device__ Matrix matrix_at(const double *values, long long n) {
  Matrix made;
  for (int m = 0; m < 9; m++)
    made.of[m] = values[9 * n + m];
  return made;
}

__device__ void put(const Matrix &u, Counts found, double *made, int *counts, long long n) {
  for (int m = 0; m < 9; m++)
    made[9 * n + m] = u.of[m];
  counts[2 * n] = found.hits;
  counts[2 * n + 1] = found.counted;
}

// A warp for each voxel: from each of its `of` starts, shape (voxels, of, 9), to the best of what these come to. `x` and
// `y` are of shape (voxels, points); `counts` are (hits, counted).
extern "C" __global__ void climb_voxels(const double *optics, const int *sizes, const double *g0, const unsigned *bits,
                                        const unsigned *blocks, const unsigned char *present, const double *tried,
                                        const double *aside, const double *middles, int levels, int centre,
                                        const float *x, const float *y, const double *starts, int voxels, int of,
                                        double *made, int *counts) {
  __shared__ Room rooms[WARPS];
  Scene scene = scene_of(optics, sizes, g0, bits, blocks, present);
  int lane = threadIdx.x % WARP;
  long long n = (long long)blockIdx.x * WARPS + threadIdx.x / WARP, at = n * scene.sizes.points;
  if (n >= voxels)
    return; // the whole warp, and no barrier of a block comes
  Place place = {scene, x + at, y + at, rooms[threadIdx.x / WARP], lane};
  Turns turns = {tried, aside, middles, levels};
  Matrix best = matrix_at(starts, n * of);
  Counts most = {0, 1};
  for (int k = 0; k < of; k++) {
    Matrix u = matrix_at(starts, n * of + k);
    Counts now = climb(place, u, score(place, u), turns, centre);
    if (now.above(most)) {
      most = now;
      best = u;
    }
  }
  if (lane == 0)
    put(best, most, made, counts, n);
}

// A warp for each of the voxels `which`: the orientation of a neighbour that has changed, where that is better here than
// the voxel's own, and climbed from it. All look at what there was before, `orientations` and `before` of all voxels;
// `made`, `counts` and `changes` are of `which` alone.
extern "C" __global__ void spread_voxels(const double *optics, const int *sizes, const double *g0, const unsigned *bits,
                                         const unsigned *blocks, const unsigned char *present, const double *tried,
                                         const double *aside, const double *middles, int levels, const float *x,
                                         const float *y, const int *which, int voxels, const double *orientations,
                                         const int *before, const int *neighbours, int around,
                                         const unsigned char *changed, double *made, int *counts,
                                         unsigned char *changes) {
  __shared__ Room rooms[WARPS];
  Scene scene = scene_of(optics, sizes, g0, bits, blocks, present);
  int lane = threadIdx.x % WARP;
  long long m = (long long)blockIdx.x * WARPS + threadIdx.x / WARP, at = m * scene.sizes.points;
  if (m >= voxels)
    return; // the whole warp, and no barrier of a block comes
  Place place = {scene, x + at, y + at, rooms[threadIdx.x / WARP], lane};
  Turns turns = {tried, aside, middles, levels};
  int n = which[m];
  Matrix u = matrix_at(orientations, n);
  Counts now = {before[2 * n], before[2 * n + 1]};
  bool better = false;
  for (int k = 0; k < around; k++) {
    int other = neighbours[(long long)m * around + k];
    if (other < 0 || !changed[other] || before[2 * other] == 0)
      continue;
    Matrix their = matrix_at(orientations, other);
    Counts found = score(place, their);
    if (found.above(now)) {
      now = found;
      u = their;
      better = true;
    }
  }
  if (better)
    now = climb(place, u, now, turns, true);
  if (lane == 0) {
    put(u, now, made, counts, m);
    changes[m] = better;
  }
}
