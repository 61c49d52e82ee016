// Orientations made better at a voxel: the refinement of the near field, `nearfield/refine.py`. See `rays.cuh`.
//
//   climb_voxels   starts              to orientations the best near any of a voxel's starts
//   spread_voxels  a map               to orientations those of neighbours that are better here, climbed from

#include "rays.cuh"

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
