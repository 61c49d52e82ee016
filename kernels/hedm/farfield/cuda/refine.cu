// Twelve numbers a grain by Gauss-Newton, `kernels.hedm.farfield.refinement`: a warp takes a grain.
//
// A lane takes a reflection and one of its two omegas: it predicts the spot, looks for the nearest one measured, and puts
// weighted derivatives and residuals as a row into shared memory. When 32 have been looked at, each lane adds what the rows
// say to three of the 96 sums: 78 of the normal matrix, 12 of the right side, 6 for the covariance and the report. Rows lie
// in the order of reflections, so each sum has the CPU's order, and its bits.
//
// Compiled without fused multiplication and addition, with no header but those beside it, and with WARPS of a block.

#include "forward.cuh"
#include "algebra.cuh"

#define N 12             // numbers of a grain
#define TRIANGLE 78      // of their normal matrix
#define COLUMNS 13       // of a row: derivatives by them, and the residual
#define SCALARS 6        // that follow it
#define PITCH 45         // 3 rows of COLUMNS, and SCALARS
#define SUMS 96          // TRIANGLE + N + SCALARS, three for each lane
#define TUKEY 2.0
#define FEWEST 8
#define SLACK 1e-4
#define NO_SPOT -1
#define NOT_EXPECTED -2
#define REPORT 5

struct Cells {
  const int *start, *place;
  const double *spot; // rows of 5: the point, cosine and sine of omega
  int etas, omegas;
};

struct Room {
  double turn[9], place[3], strain[6], shrink[9], normal[N * N], right[N], move[N], scalars[SCALARS];
  double rows[WARP * PITCH];
};

// A spot where it is predicted.
struct Predicted {
  double ux, uy, uz, gx, gy, gz, cos, sin, kx, ky, kz;
  int panel;
  double x, y, z;
};

struct Match {
  int which;
  double distance2, a, b, omega;
};

__device__ Match nearest(const Cells &cells, int shell, double eta, double eta_reach, double omega_reach,
                         const double *panel, const Predicted &at, double inverse_um, double inverse_omega, double gate2) {
  double scale_e = cells.etas / (2.0 * PI), scale_o = cells.omegas / (2.0 * PI);
  double turned = arctangent(at.sin, at.cos) + PI;
  int low = whole_below((eta + PI - eta_reach - SLACK) * scale_e);
  int high = whole_below((eta + PI + eta_reach + SLACK) * scale_e);
  int begin = whole_below((turned - omega_reach - SLACK) * scale_o);
  int end = whole_below((turned + omega_reach + SLACK) * scale_o);
  high = min(high, low + cells.etas - 1);
  end = min(end, begin + cells.omegas - 1);
  Match found = {-1, gate2, 0, 0, 0};
  for (int e = low; e <= high; e++) {
    const int *row = cells.start + ((long long)shell * cells.etas + around(e, cells.etas)) * cells.omegas;
    for (int part = 0; part < 2; part++) {
      int first = max(begin, 0), last = min(end, cells.omegas - 1);
      if (part && begin < 0) {
        first = begin + cells.omegas;
        last = cells.omegas - 1;
      } else if (part && end >= cells.omegas) {
        first = 0;
        last = end - cells.omegas;
      } else if (part) {
        break;
      }
      for (int n = row[first]; n < row[last + 1]; n++) {
        const double *spot = cells.spot + 5LL * n;
        double w = spot[4] * at.cos - spot[3] * at.sin;
        if (spot[3] * at.cos + spot[4] * at.sin < 0)
          continue;
        double dx = spot[0] - at.x, dy = spot[1] - at.y, dz = spot[2] - at.z;
        double a = dx * panel[ROW] + dy * panel[ROW + 1] + dz * panel[ROW + 2];
        double b = dx * panel[COLUMN] + dy * panel[COLUMN + 1] + dz * panel[COLUMN + 2];
        double away = (a * a + b * b) * inverse_um * inverse_um + w * w * inverse_omega * inverse_omega;
        if (away < found.distance2)
          found = {n, away, a, b, w};
      }
    }
  }
  found.omega += found.omega * found.omega * found.omega / 6;
  return found;
}

// Of the ideal point on its panel, and of omega, by the twelve numbers, into three rows of COLUMNS.
__device__ void differentiate(const double *source, const double *panel, const Predicted &at, const double *shrink,
                              const double *place, double *out) {
  double bx = source[0], by = source[1], bz = source[2], wavelength = source[3];
  double cos = at.cos, sin = at.sin, px = place[0], py = place[1], pz = place[2];
  double hx = cos * at.gx - sin * at.gy, hy = sin * at.gx + cos * at.gy;
  double lx = cos * px - sin * py, ly = sin * px + cos * py;
  double t = hit(panel, lx, ly, pz, at.kx, at.ky, at.kz).t;
  const double *normal = panel + NORMAL;
  double n_k = dot(normal, at.kx, at.ky, at.kz), rate = -1 / (hx * by - hy * bx);
  double wx = (cos * bx + sin * by + wavelength * at.gx) * rate;
  double wy = (cos * by - sin * bx + wavelength * at.gy) * rate;
  double wz = (bz + wavelength * at.gz) * rate;
  for (int m = 0; m < 3; m++, out += COLUMNS) {
    double jx = wx, jy = wy, jz = wz;
    out[3] = out[4] = out[5] = 0;
    if (m < 2) {
      const double *edge = panel + (m ? COLUMN : ROW);
      double slope = dot(edge, at.kx, at.ky, at.kz) / n_k;
      double mx = edge[0] - slope * normal[0], my = edge[1] - slope * normal[1], mz = edge[2] - slope * normal[2];
      double qx = cos * mx + sin * my, qy = cos * my - sin * mx, s = t * wavelength;
      double turn = s * (my * hx - mx * hy) + my * lx - mx * ly;
      jx = s * qx + turn * wx;
      jy = s * qy + turn * wy;
      jz = s * mz + turn * wz;
      out[3] = qx;
      out[4] = qy;
      out[5] = mz;
    }
    double vx = shrink[0] * jx + shrink[3] * jy + shrink[6] * jz;
    double vy = shrink[1] * jx + shrink[4] * jy + shrink[7] * jz;
    double vz = shrink[2] * jx + shrink[5] * jy + shrink[8] * jz;
    out[0] = at.uy * vz - at.uz * vy;
    out[1] = at.uz * vx - at.ux * vz;
    out[2] = at.ux * vy - at.uy * vx;
    out[6] = -vx * at.gx;
    out[7] = -vy * at.gy;
    out[8] = -vz * at.gz;
    out[9] = -(vy * at.gz + vz * at.gy);
    out[10] = -(vx * at.gz + vz * at.gx);
    out[11] = -(vx * at.gy + vy * at.gx);
  }
}

__device__ void shrinking(const double *strain, double *out) {
  double a = 1 + strain[0], b = 1 + strain[1], c = 1 + strain[2], d = strain[3], e = strain[4], f = strain[5];
  double xx = b * c - d * d, yy = a * c - e * e, zz = a * b - f * f;
  double xy = d * e - c * f, xz = d * f - b * e, yz = e * f - a * d, s = 1 / (a * xx + f * xy + e * xz);
  out[0] = xx * s;
  out[4] = yy * s;
  out[8] = zz * s;
  out[1] = out[3] = xy * s;
  out[2] = out[6] = xz * s;
  out[5] = out[7] = yz * s;
}

// As `refinement.turn_by`, with its series.
__device__ void turn_by(double *matrix, double x, double y, double z) {
  const double sines[] = {1 / 6227020800.0, -1 / 39916800.0, 1 / 362880.0, -1 / 5040.0, 1 / 120.0, -1 / 6.0, 1};
  const double versines[] = {1 / 87178291200.0, -1 / 479001600.0, 1 / 3628800.0, -1 / 40320.0, 1 / 720.0, -1 / 24.0, 0.5};
  double a = x * x + y * y + z * z, s = 0, c = 0;
  if (a < 0.25) {
    for (int n = 0; n < 7; n++) {
      s = s * a + sines[n];
      c = c * a + versines[n];
    }
  } else {
    double angle = sqrt(a);
    s = sin(angle) / angle;
    c = (1 - cos(angle)) / a;
  }
  for (int k = 0; k < 3; k++) {
    double u = matrix[k], v = matrix[3 + k], w = matrix[6 + k];
    double p = y * w - z * v, q = z * u - x * w, r = x * v - y * u;
    matrix[k] = u + s * p + c * (y * r - z * q);
    matrix[3 + k] = v + s * q + c * (z * p - x * r);
    matrix[6 + k] = w + s * r + c * (x * q - y * p);
  }
}

// The spot of a reflection at one of its omegas: false where none is expected.
__device__ bool predicted(const Geometry &in, const double *g0, int solution, const Room &mine, double min_sine2,
                          Predicted &at, double &ey, double &ez) {
  const double *turn = mine.turn, *shrink = mine.shrink, *source = in.source, *place = mine.place;
  double wavelength = source[3];
  at.ux = turn[0] * g0[0] + turn[1] * g0[1] + turn[2] * g0[2];
  at.uy = turn[3] * g0[0] + turn[4] * g0[1] + turn[5] * g0[2];
  at.uz = turn[6] * g0[0] + turn[7] * g0[1] + turn[8] * g0[2];
  at.gx = dot(shrink, at.ux, at.uy, at.uz);
  at.gy = dot(shrink + 3, at.ux, at.uy, at.uz);
  at.gz = dot(shrink + 6, at.ux, at.uy, at.uz);
  Omegas found = solve(at.gx, at.gy, at.gz, source);
  if (found.w == 0)
    return false;
  double cos = at.cos = solution ? found.cos1 : found.cos0;
  double sin = at.sin = solution ? found.sin1 : found.sin0;
  at.kx = source[0] + wavelength * (cos * at.gx - sin * at.gy);
  at.ky = source[1] + wavelength * (sin * at.gx + cos * at.gy);
  at.kz = source[2] + wavelength * at.gz;
  ey = dot(source + 4, at.kx, at.ky, at.kz);
  ez = dot(source + 7, at.kx, at.ky, at.kz);
  if (ey * ey < min_sine2 * (ey * ey + ez * ez))
    return false;
  Found on = find(in, cos * place[0] - sin * place[1], sin * place[0] + cos * place[1], place[2], at.kx, at.ky, at.kz);
  if (on.panel < 0 || !measured(in, arctangent(sin, cos)))
    return false;
  const double *panel = in.panels + on.panel * PANEL;
  at.panel = on.panel;
  at.x = panel[CENTRE] + on.a * panel[ROW] + on.b * panel[COLUMN];
  at.y = panel[CENTRE + 1] + on.a * panel[ROW + 1] + on.b * panel[COLUMN + 1];
  at.z = panel[CENTRE + 2] + on.a * panel[ROW + 2] + on.b * panel[COLUMN + 2];
  return true;
}

// One step's deviations and gate.
struct Gate {
  double um, omega, width, mosaicity, min_sine2;
};

// What a lane finds for its reflection and omega: the number of the spot in `cells`, or NO_SPOT, or NOT_EXPECTED.
__device__ int looked_up(const Geometry &in, const Cells &cells, const double *g0, int shell, int solution,
                         const Room &mine, const Gate &gate, Predicted &at, Match &match, double &inverse_omega) {
  double ey, ez;
  if (!predicted(in, g0, solution, mine, gate.min_sine2, at, ey, ez))
    return NOT_EXPECTED;
  const double *source = in.source;
  double far = sqrt(at.x * at.x + at.y * at.y + at.z * at.z);
  double dx = at.x / far - source[0], dy = at.y / far - source[1], dz = at.z / far - source[2];
  double cy = dot(source + 4, dx, dy, dz), cz = dot(source + 7, dx, dy, dz);
  double radius = sqrt(cy * cy + cz * cz) * far;
  double blur = gate.mosaicity * sqrt(1 + ez * ez / (ey * ey));
  double deviation = sqrt(gate.omega * gate.omega + blur * blur);
  inverse_omega = 1 / deviation;
  match = nearest(cells, shell, arctangent(-cy, cz), gate.width * gate.um / radius, gate.width * deviation,
                  in.panels + at.panel * PANEL, at, 1 / gate.um, inverse_omega, gate.width * gate.width);
  return match.which < 0 ? NO_SPOT : match.which;
}

// The row of a spot that was found.
__device__ void fill(const Geometry &in, const Predicted &at, const Match &match, double inverse_um,
                     double inverse_omega, double cut2, const Room &mine, double *row) {
  differentiate(in.source, in.panels + at.panel * PANEL, at, mine.shrink, mine.place, row);
  double share = 1 - match.distance2 / cut2, weight = share * share, root = sqrt(weight);
  for (int k = 0; k < N; k++) {
    row[k] *= inverse_um * root;
    row[COLUMNS + k] *= inverse_um * root;
    row[2 * COLUMNS + k] *= inverse_omega * root;
  }
  row[N] = match.a * inverse_um * root;
  row[COLUMNS + N] = match.b * inverse_um * root;
  row[2 * COLUMNS + N] = match.omega * inverse_omega * root;
  double *scalar = row + 3 * COLUMNS;
  scalar[0] = match.a * match.a + match.b * match.b;
  scalar[1] = match.omega * match.omega;
  scalar[2] = match.distance2;
  scalar[3] = weight;
  scalar[4] = weight * weight * match.distance2;
  scalar[5] = weight - 4.0 / 3.0 * share * match.distance2 / cut2;
}

// Which two columns of the rows a sum multiplies; for SCALARS where they lie, and -1.
__device__ void factors(int sum, int &first, int &second) {
  first = second = 0;
  if (sum >= TRIANGLE + N) {
    first = 3 * COLUMNS + sum - TRIANGLE - N;
    second = -1;
  } else if (sum >= TRIANGLE) {
    first = sum - TRIANGLE;
    second = N;
  } else {
    while ((first + 1) * (first + 2) / 2 <= sum)
      first++;
    second = sum - first * (first + 1) / 2;
  }
}

// Find the spots of a grain, and its normal equations; `expected` and `matched` are counted for all lanes.
__device__ void gather(const Geometry &in, const Cells &cells, const double *g0, const int *shell, int reflections,
                       const Gate &gate, Room &mine, int *spot, float *away, int &expected, int &matched, int lane) {
  int first[SUMS / WARP], second[SUMS / WARP];
  double sums[SUMS / WARP];
#pragma unroll
  for (int i = 0; i < SUMS / WARP; i++) {
    factors(lane + i * WARP, first[i], second[i]);
    sums[i] = 0;
  }
  double cut2 = TUKEY * (gate.width * gate.width), inverse_um = 1 / gate.um;
  expected = matched = 0;
  for (int begin = 0; begin < 2 * reflections; begin += WARP) {
    int slot = begin + lane, which = NOT_EXPECTED;
    Predicted at = {};
    Match match = {};
    double inverse_omega = 0;
    if (slot < 2 * reflections) {
      int h = slot / 2;
      which = looked_up(in, cells, g0 + 3 * h, shell[h], slot % 2, mine, gate, at, match, inverse_omega);
      spot[slot] = which >= 0 ? cells.place[which] : which;
      if (which >= 0)
        away[slot] = (float)sqrt(match.distance2);
    }
    unsigned there = __ballot_sync(ALL, which >= 0);
    expected += __popc(__ballot_sync(ALL, which != NOT_EXPECTED));
    int count = __popc(there);
    if (which >= 0) {
      int row = __popc(there & ((1u << lane) - 1));
      fill(in, at, match, inverse_um, inverse_omega, cut2, mine, mine.rows + row * PITCH);
    }
    __syncwarp();
    for (int n = 0; n < count; n++) {
      const double *row = mine.rows + n * PITCH;
#pragma unroll
      for (int i = 0; i < SUMS / WARP; i++) {
        const double *a = row + first[i], *b = row + second[i];
        sums[i] += second[i] < 0 ? a[0] : a[0] * b[0] + a[COLUMNS] * b[COLUMNS] + a[2 * COLUMNS] * b[2 * COLUMNS];
      }
    }
    matched += count;
    __syncwarp(); // before rows are written again
  }
#pragma unroll
  for (int i = 0; i < SUMS / WARP; i++) {
    if (second[i] < 0)
      mine.scalars[first[i] - 3 * COLUMNS] = sums[i];
    else if (second[i] == N)
      mine.right[first[i]] = sums[i];
    else
      mine.normal[first[i] * N + second[i]] = sums[i];
  }
  __syncwarp();
}

// A warp for each grain, in place. `steps` are rows of 4: deviations in µm and in radians, the gate in units of them, and
// how many numbers are refined; the last only looks. `done` is 1 where there is a covariance.
extern "C" __global__ void refine_grains(const double *source, const double *panels, const double *tables,
                                         const double *ranges, int panel_count, int range_count, const int *start,
                                         const int *place, const double *spots, int etas, int omegas, const double *g0,
                                         const int *shell, int reflections, double mosaicity, double min_sine2,
                                         const double *steps, int step_count, int grains, double *orientation,
                                         double *position, double *strain, double *covariance, double *report,
                                         int *done, int *spot, float *away) {
  __shared__ Room rooms[WARPS];
  int lane = threadIdx.x % WARP, grain = blockIdx.x * WARPS + threadIdx.x / WARP;
  if (grain >= grains)
    return; // the whole warp, and no barrier of a block comes
  Room &mine = rooms[threadIdx.x / WARP];
  Geometry in = {source, panels, tables, ranges, panel_count, range_count};
  Cells cells = {start, place, spots, etas, omegas};
  long long slots = 2LL * reflections;
  spot += grain * slots;
  away += grain * slots;
  for (long long n = lane; n < slots; n += WARP)
    away[n] = 0;
  if (lane < 9)
    mine.turn[lane] = orientation[9LL * grain + lane];
  if (lane < 3)
    mine.place[lane] = position[3LL * grain + lane];
  if (lane < 6)
    mine.strain[lane] = strain[6LL * grain + lane];
  __syncwarp();

  int expected = 0, matched = 0;
  bool good = false;
  double freedom = 1;
  for (int step = 0; step < step_count; step++) {
    Gate gate = {steps[4 * step], steps[4 * step + 1], steps[4 * step + 2], mosaicity, min_sine2};
    int count = (int)steps[4 * step + 3];
    if (lane == 0)
      shrinking(mine.strain, mine.shrink);
    __syncwarp();
    gather(in, cells, g0, shell, reflections, gate, mine, spot, away, expected, matched, lane);
    freedom = max(3.0 * matched - N, 1.0);
    if (matched < FEWEST) {
      if (matched < 4)
        break;
      count = 6;
    }
    if (!factor(mine.normal, N, count, lane))
      break;
    if (step == step_count - 1) {
      good = count == N;
      break;
    }
    if (lane == 0) {
      substitute(mine.normal, N, count, mine.right, mine.move);
      turn_by(mine.turn, mine.move[0], mine.move[1], mine.move[2]);
      for (int k = 0; k < 3; k++)
        mine.place[k] += mine.move[3 + k];
      for (int k = 6; k < count; k++)
        mine.strain[k - 6] += mine.move[k];
    }
    __syncwarp();
  }

  const double *scalars = mine.scalars;
  if (good && lane < N) {
    double scale = scalars[3] * scalars[4] / max(3.0 * scalars[5] * scalars[5], 1e-300) * 3.0 * matched / freedom;
    double unit[N], *row = covariance + (12LL * grain + lane) * N;
    for (int k = 0; k < N; k++)
      unit[k] = k == lane;
    substitute(mine.normal, N, N, unit, row);
    for (int k = 0; k < N; k++)
      row[k] *= scale;
  }
  if (lane < 9)
    orientation[9LL * grain + lane] = mine.turn[lane];
  if (lane < 3)
    position[3LL * grain + lane] = mine.place[lane];
  if (lane < 6)
    strain[6LL * grain + lane] = mine.strain[lane];
  if (lane == 0) {
    double *mine_of = report + (long long)REPORT * grain;
    mine_of[0] = expected;
    mine_of[1] = matched;
    mine_of[2] = scalars[0];
    mine_of[3] = scalars[1];
    mine_of[4] = scalars[2] / freedom;
    done[grain] = good;
  }
}
