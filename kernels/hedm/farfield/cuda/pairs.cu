// Grains from Friedel pairs, `kernels.hedm.farfield.pairindex` and `paircells`: a warp takes a seed.
//
// Each lane takes one of the pairs that may be the seed's mates, 32 after the other, and sees whether the angle between
// both is one of the lattice and whether their lines meet. Such a candidate is rare. Where a lane has one, the whole warp
// judges it, a lane a line of the lattice; candidates come in the order of the CPU, and the search ends where it ends
// there. The best one is fitted to its pairs: of the 30 sums of a fit each lane adds up one, in the order of the pairs.
//
// Compiled without fused multiplication and addition, with no header but those beside it, and with WARPS of a block and
// BINS of the cosine of an angle.

#include "forward.cuh"
#include "algebra.cuh"

#define PAIR 10   // numbers of a pair: unit vector 3, ray 3, offset 3, length
#define RAY 3
#define OFFSET 6
#define LENGTH 9
#define STEEPEST 2.23606797749979
#define STAGE 15 // numbers of a pair in a fit: PAIR, the reflection 3 and one over its length, signed length
#define FAR 1e30

// Places in `scalars`.
#define ANGLE_WIDE 0
#define ANGLE 1
#define STRAIN 2
#define GATE_WIDE 3
#define GATE 4
#define STIFFNESS 5
#define RADIUS 6
#define HALF_HEIGHT 7
#define ENOUGH 8
#define LEAST_SHARE 9

struct PairCells {
  const int *start, *item;
  const double *pair;
  const unsigned char *used;
  int size;
};

struct Lines {
  const double *g0;
  const int *ring, *shell;
  int count;
};

struct Table {
  const int *first, *last; // (families, BINS)
  const double *cosine, *slack, *length, *triad;
  int families;
};

struct Room {
  double turn[9], place[3], gate; // of a candidate
  double matrix[9], position[3];  // of the best
  double sums[9], square[9], across[9], right[3], lower[9], rotation[9];
  double staged[WARP * STAGE];
};

__device__ bool inside(const double *place, const double *scalars) {
  return fabs(place[2]) <= scalars[HALF_HEIGHT] &&
         place[0] * place[0] + place[1] * place[1] <= scalars[RADIUS] * scalars[RADIUS];
}

// The two pairs of a line that fit best into `found`, -1 for none.
__device__ int matches_of(const PairCells &cells, const double *matrix, const double *position, const double *g0,
                          int shell, double angle, double strain, double gate, int *found) {
  const double *pair = cells.pair;
  int size = cells.size;
  double scale = 0.5 * size, reach = STEEPEST * angle, least_cosine = 1 - 0.5 * angle * angle;
  double inverse_angle = 2 / (angle * angle), inverse_gate = 1 / (gate * gate);
  double gx = dot(matrix, g0[0], g0[1], g0[2]), gy = dot(matrix + 3, g0[0], g0[1], g0[2]);
  double gz = dot(matrix + 6, g0[0], g0[1], g0[2]);
  double length = sqrt(gx * gx + gy * gy + gz * gz), inverse = gz >= 0 ? 1 / length : -1 / length;
  double x = gx * inverse, y = gy * inverse, z = gz * inverse, whole = 1 / (fabs(x) + fabs(y) + z);
  double a = ((x + y) * whole + 1) * scale, b = ((x - y) * whole + 1) * scale;
  int low = min(max((int)(a - reach * scale), 0), size - 1), high = min((int)(a + reach * scale), size - 1);
  int begin = min(max((int)(b - reach * scale), 0), size - 1), end = min((int)(b + reach * scale), size - 1);
  double best = FAR, second = FAR;
  int first = -1, other = -1;
  for (int row = low; row <= high; row++) {
    const int *start = cells.start + ((long long)shell * size + row) * size;
    for (int n = start[begin]; n < start[end + 1]; n++) {
      int i = cells.item[n];
      const double *here = pair + (long long)PAIR * i;
      double cosine = fabs(here[0] * x + here[1] * y + here[2] * z);
      if (cosine < least_cosine || cells.used[i] || fabs(here[LENGTH] - length) > strain * length)
        continue;
      double along = here[RAY] * position[0] + here[RAY + 1] * position[1] + here[RAY + 2] * position[2];
      double ex = position[0] - along * here[RAY] - here[OFFSET];
      double ey = position[1] - along * here[RAY + 1] - here[OFFSET + 1];
      double ez = position[2] - along * here[RAY + 2] - here[OFFSET + 2];
      double off = (ex * ex + ey * ey + ez * ez) * inverse_gate;
      if (off > 1)
        continue;
      off += (1 - cosine) * inverse_angle;
      if (off < best) {
        second = best;
        other = first;
        best = off;
        first = i;
      } else if (off < second && i != first) {
        second = off;
        other = i;
      }
    }
  }
  found[0] = first;
  found[1] = other;
  return (first >= 0) + (other >= 0);
}

// How many pairs belong to a grain, for all lanes.
__device__ int matches(const PairCells &cells, const double *matrix, const double *position, const Lines &lines,
                       double angle, double strain, double gate, int *found, int lane) {
  int total = 0;
  for (int k = lane; k < lines.count; k += WARP)
    total += matches_of(cells, matrix, position, lines.g0 + 3 * k, lines.shell[k], angle, strain, gate, found + 2 * k);
  total = sum_of_warp(total);
  __syncwarp();
  return total;
}

// Rows: unit vector a, that along a × b, and that along the first × the second.
__device__ void triad(const double *a, const double *b, double *out) {
  double cx = a[1] * b[2] - a[2] * b[1], cy = a[2] * b[0] - a[0] * b[2], cz = a[0] * b[1] - a[1] * b[0];
  double inverse = 1 / sqrt(cx * cx + cy * cy + cz * cz);
  cx *= inverse;
  cy *= inverse;
  cz *= inverse;
  out[0] = a[0];
  out[1] = a[1];
  out[2] = a[2];
  out[3] = cx;
  out[4] = cy;
  out[5] = cz;
  out[6] = a[1] * cz - a[2] * cy;
  out[7] = a[2] * cx - a[0] * cz;
  out[8] = a[0] * cy - a[1] * cx;
}

// A lane's mate, the entries of the table that are still to be looked at, and where the lines of both come closest.
struct Mate {
  const double *pair;
  double cosine, place[3], sine2;
  int entry, last;
};

// Go on to the next entry that makes a candidate: `entry` is `last` where none is left.
__device__ void go_on(Mate &mate, const double *seed, const Table &table, const double *scalars) {
  const double *r = seed + RAY, *o = seed + OFFSET, *other = mate.pair, *s = other + RAY;
  for (; mate.entry < mate.last; mate.entry++) {
    int entry = mate.entry;
    if (fabs(mate.cosine - table.cosine[entry]) > table.slack[entry])
      continue;
    if (fabs(other[LENGTH] - table.length[entry]) > scalars[STRAIN] * table.length[entry])
      continue;
    if (other == seed)
      continue;
    double dx = other[OFFSET] - o[0], dy = other[OFFSET + 1] - o[1], dz = other[OFFSET + 2] - o[2];
    double rs = r[0] * s[0] + r[1] * s[1] + r[2] * s[2], sine2 = 1 - rs * rs;
    if (sine2 < 1e-3)
      continue;
    double dr = dx * r[0] + dy * r[1] + dz * r[2], ds = dx * s[0] + dy * s[1] + dz * s[2];
    double t = (dr - rs * ds) / sine2, u = (rs * dr - ds) / sine2;
    double ex = t * r[0] - u * s[0] - dx, ey = t * r[1] - u * s[1] - dy, ez = t * r[2] - u * s[2] - dz;
    if (ex * ex + ey * ey + ez * ez > scalars[GATE_WIDE] * scalars[GATE_WIDE])
      continue;
    mate.place[0] = o[0] + t * r[0] + 0.5 * (dx + u * s[0] - t * r[0]);
    mate.place[1] = o[1] + t * r[1] + 0.5 * (dy + u * s[1] - t * r[1]);
    mate.place[2] = o[2] + t * r[2] + 0.5 * (dz + u * s[2] - t * r[2]);
    mate.sine2 = sine2;
    if (inside(mate.place, scalars))
      return;
  }
}

// What the candidate of one lane is, for the others.
__device__ void tell(const Mate &mate, const double *seed, const Table &table, const double *scalars, Room &mine) {
  double observed[9];
  const double *wanted = table.triad + 9LL * mate.entry;
  triad(seed, mate.pair, observed);
  for (int a = 0; a < 3; a++) {
    mine.place[a] = mate.place[a];
    for (int b = 0; b < 3; b++)
      mine.turn[3 * a + b] = observed[a] * wanted[b] + observed[3 + a] * wanted[3 + b] + observed[6 + a] * wanted[6 + b];
  }
  mine.gate = scalars[GATE_WIDE] * (1 + 1 / sqrt(mate.sine2));
}

// The best candidate of a seed into `matrix`, `position` and `found`: how many pairs it has; `candidates` were judged.
__device__ int search(const PairCells &cells, int seed, const int *mates, const double *directions, int mate_count,
                      const Table &table, const Lines &lines, const double *scalars, Room &mine, int *found, int *here,
                      int &candidates, int lane) {
  const double *pair = cells.pair + (long long)PAIR * seed;
  double x = pair[0], y = pair[1], z = pair[2];
  int best = 0;
  candidates = 0;
  for (int family = 0; family < table.families; family++) {
    for (int begin = 0; begin < mate_count; begin += WARP) {
      int m = begin + lane;
      Mate mate = {pair, 0, {0, 0, 0}, 1, 0, 0};
      if (m < mate_count) {
        mate.cosine = x * directions[m] + y * directions[mate_count + m] + z * directions[2LL * mate_count + m];
        int bin = family * BINS + min((int)((mate.cosine + 1) * (0.5 * BINS)), BINS - 1);
        mate.entry = table.first[bin];
        mate.last = table.last[bin];
        mate.pair = cells.pair + (long long)PAIR * mates[m];
        go_on(mate, pair, table, scalars);
      }
      unsigned there;
      while ((there = __ballot_sync(ALL, mate.entry < mate.last))) {
        unsigned leader = there & (0 - there); // the first
        bool leads = leader >> lane & 1;
        if (leads)
          tell(mate, pair, table, scalars, mine);
        __syncwarp();
        candidates++;
        int total = matches(cells, mine.turn, mine.place, lines, scalars[ANGLE_WIDE], scalars[STRAIN], mine.gate, here,
                            lane);
        if (total > best) {
          best = total;
          if (lane < 9)
            mine.matrix[lane] = mine.turn[lane];
          if (lane < 3)
            mine.position[lane] = mine.place[lane];
          for (int n = lane; n < 2 * lines.count; n += WARP)
            found[n] = here[n];
        }
        if (leads) {
          mate.entry++;
          go_on(mate, pair, table, scalars);
        }
        __syncwarp(); // the candidate has been read
        bool more = __ballot_sync(ALL, mate.entry < mate.last) & leader;
        if (best >= scalars[ENOUGH] && !more)
          return best;
      }
    }
  }
  return best;
}

// The rotation nearest to a matrix; false where it has none. By one lane.
__device__ bool nearest_rotation(const double *matrix, double *out) {
  double size = 0;
  for (int n = 0; n < 9; n++)
    size += matrix[n] * matrix[n];
  if (size <= 0)
    return false;
  double scale = sqrt(3 / size);
  for (int n = 0; n < 9; n++)
    out[n] = matrix[n] * scale;
  for (int step = 0; step < 40; step++) {
    double cofactor[9] = {
        out[4] * out[8] - out[5] * out[7], out[5] * out[6] - out[3] * out[8], out[3] * out[7] - out[4] * out[6],
        out[2] * out[7] - out[1] * out[8], out[0] * out[8] - out[2] * out[6], out[1] * out[6] - out[0] * out[7],
        out[1] * out[5] - out[2] * out[4], out[2] * out[3] - out[0] * out[5], out[0] * out[4] - out[1] * out[3]};
    double determinant = out[0] * cofactor[0] + out[1] * cofactor[1] + out[2] * cofactor[2];
    if (determinant < 1e-9)
      return false;
    double inverse = 0.5 / determinant, change = 0;
    for (int n = 0; n < 9; n++) {
      double made = 0.5 * out[n] + inverse * cofactor[n];
      change = max(change, fabs(made - out[n]));
      out[n] = made;
    }
    if (change < 1e-12)
      break;
  }
  return true;
}

// What the pair i, of the line k, brings to a fit.
__device__ void stage(const double *pair, const double *g, const double *matrix, double *out) {
  double inverse = 1 / sqrt(g[0] * g[0] + g[1] * g[1] + g[2] * g[2]), dot = 0;
  for (int a = 0; a < 3; a++)
    for (int b = 0; b < 3; b++)
      dot += pair[a] * matrix[3 * a + b] * g[b];
  for (int n = 0; n < LENGTH; n++)
    out[n] = pair[n];
  for (int n = 0; n < 3; n++)
    out[LENGTH + n] = g[n];
  out[12] = inverse;
  out[13] = dot >= 0 ? pair[LENGTH] * inverse : -pair[LENGTH] * inverse;
}

// What a staged pair adds to sum `which` of 30, in as many additions as on the CPU.
__device__ double added(double sum, int which, const double *row) {
  int of = which % 9, a = of / 3, b = of % 3;
  const double *ray = row + RAY, *g = row + LENGTH;
  double inverse = row[12], length = row[13];
  if (which < 9)
    return sum + length * row[a] * g[b] * inverse;
  if (which < 18)
    return sum + g[a] * g[b] * inverse * inverse;
  if (which < 27) {
    sum -= ray[a] * ray[b];
    return a == b ? sum + 1 : sum;
  }
  return sum + row[OFFSET + of];
}

// The matrix and position that fit the pairs `found` best; false, for all lanes, where they do not tell.
__device__ bool fit(const PairCells &cells, const int *found, const Lines &lines, double stiffness, Room &mine,
                    int lane) {
  double sum = 0;
  for (int begin = 0; begin < 2 * lines.count; begin += WARP) {
    int n = begin + lane, i = n < 2 * lines.count ? found[n] : -1;
    unsigned there = __ballot_sync(ALL, i >= 0);
    if (i >= 0) {
      int row = __popc(there & ((1u << lane) - 1));
      stage(cells.pair + (long long)PAIR * i, lines.g0 + 3 * (n / 2), mine.matrix, mine.staged + row * STAGE);
    }
    __syncwarp();
    for (int k = 0, count = __popc(there); k < count && lane < 30; k++)
      sum = added(sum, lane, mine.staged + k * STAGE);
    __syncwarp(); // before rows are written again
  }
  if (lane < 9)
    mine.sums[lane] = sum;
  else if (lane < 18)
    mine.square[lane - 9] = sum;
  else if (lane < 27)
    mine.across[lane - 18] = sum;
  else if (lane < 30)
    mine.right[lane - 27] = sum;
  __syncwarp();
  if (!factor(mine.across, 3, 3, lane))
    return false;
  bool good = true;
  if (lane == 0) {
    substitute(mine.across, 3, 3, mine.right, mine.position);
    good = nearest_rotation(mine.sums, mine.rotation);
    for (int a = 0; a < 3; a++) {
      mine.square[4 * a] += stiffness;
      for (int b = 0; b < 3; b++)
        mine.sums[3 * a + b] += stiffness * mine.rotation[3 * a + b];
    }
  }
  __syncwarp();
  if (!(__ballot_sync(ALL, good) & 1) || !factor(mine.square, 3, 3, lane))
    return false;
  if (lane < 3)
    substitute(mine.square, 3, 3, mine.sums + 3 * lane, mine.matrix + 3 * lane);
  __syncwarp();
  return true;
}

// How many pairs a grain at the origin would show, for all lanes.
__device__ int expected_pairs(const Geometry &in, const unsigned char *seen, const double *matrix, const Lines &lines,
                              int lane) {
  const double *source = in.source;
  int total = 0;
  for (int k = lane; k < lines.count; k += WARP) {
    const double *g0 = lines.g0 + 3 * k;
    double gx = dot(matrix, g0[0], g0[1], g0[2]), gy = dot(matrix + 3, g0[0], g0[1], g0[2]);
    double gz = dot(matrix + 6, g0[0], g0[1], g0[2]);
    Omegas found = solve(gx, gy, gz, source);
    if (found.w == 0)
      continue;
    for (int s = 0; s < 2; s++) {
      double cos = s ? found.cos1 : found.cos0, sin = s ? found.sin1 : found.sin0;
      double eta = towards(source, gx, gy, gz, cos, sin), omega = arctangent(sin, cos);
      total += is_seen(in, seen, lines.ring[k], eta, omega) && is_seen(in, seen, lines.ring[k], PI - eta, omega + PI);
    }
  }
  return sum_of_warp(total);
}

// A warp for each seed. `directions` are (3, mates), the unit vectors of the mates. `report` are rows of 3: pairs found,
// expected, candidates judged; the first is 0 where there is no grain. `here` is room as large as `found`.
extern "C" __global__ void try_pairs(const int *seeds, int seed_count, const int *mates, const double *directions,
                                     int mate_count, const int *first, const int *last, const double *cosine,
                                     const double *slack, const double *length, const double *wanted, int families,
                                     const int *start, const int *item, const double *pair, const unsigned char *used,
                                     int size, const double *source, const unsigned char *seen, const double *ranges,
                                     int range_count, const double *g0, const int *ring, const int *shell, int count,
                                     const double *scalars, double *matrix, double *position, int *found, int *here,
                                     double *report) {
  __shared__ Room rooms[WARPS];
  int lane = threadIdx.x % WARP, number = blockIdx.x * WARPS + threadIdx.x / WARP;
  if (number >= seed_count)
    return; // the whole warp, and no barrier of a block comes
  Room &mine = rooms[threadIdx.x / WARP];
  PairCells cells = {start, item, pair, used, size};
  Lines lines = {g0, ring, shell, count};
  Table table = {first, last, cosine, slack, length, wanted, families};
  Geometry in = {source, nullptr, nullptr, ranges, 0, range_count};
  found += 2LL * count * number;
  here += 2LL * count * number;
  int candidates, best = search(cells, seeds[number], mates, directions, mate_count, table, lines, scalars, mine, found,
                                here, candidates, lane);
  __syncwarp();
  for (int step = 0; step < 3 && best >= 4; step++) {
    if (!fit(cells, found, lines, scalars[STIFFNESS], mine, lane))
      best = 0;
    else
      best = matches(cells, mine.matrix, mine.position, lines, scalars[step ? ANGLE : ANGLE_WIDE], scalars[STRAIN],
                     scalars[step ? GATE : GATE_WIDE], found, lane);
  }
  int expected = best >= 4 ? expected_pairs(in, seen, mine.matrix, lines, lane) : 0;
  bool good = best >= 4 && inside(mine.position, scalars) && best >= scalars[LEAST_SHARE] * expected;
  if (lane < 9)
    matrix[9LL * number + lane] = mine.matrix[lane];
  if (lane < 3)
    position[3LL * number + lane] = mine.position[lane];
  if (lane == 0) {
    report[3LL * number] = good ? best : 0;
    report[3LL * number + 1] = good ? expected : 0;
    report[3LL * number + 2] = candidates;
  }
}
