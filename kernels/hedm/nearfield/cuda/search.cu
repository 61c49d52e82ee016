// Which orientation explains most reflections at a voxel: the search of the near field. See `rays.cuh`.
//
//   trace_spots    orientations        to spots        what the voxels of the grid may hit, as an affine map of the place
//   screen_tiles   spots, tiles        to entries      each warp's best orientations of the voxels of a tile

#include "rays.cuh"

#define SHARE 40 // bits of a confidence made a whole number

typedef unsigned long long Code;

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

// Of all lanes, for all lanes.
__device__ Code most_of_warp(Code value) {
  for (int other = WARP / 2; other; other /= 2) {
    Code their = __shfl_xor_sync(ALL, value, other);
    value = their > value ? their : value;
  }
  return value;
}

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
