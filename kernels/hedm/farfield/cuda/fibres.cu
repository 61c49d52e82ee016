// How good the orientations on fibres are, `kernels.hedm.farfield.fibreindex`: a thread takes an orientation.
//
// The fibres of a seed are those about its reciprocal vector, one for each family of its ring; a fibre begins with an
// orientation that the host knows, and goes on by turns whose sine and versine it has listed. A score is the share of the
// spots expected that fall on marked cells of eta and omega. Threads of a warp have neighbours on a fibre, whose spots fall
// on neighbouring cells.
//
// Compiled without fused multiplication and addition, with no header but the one beside it.

#include "forward.cuh"

#define EARLY 24
#define LEAST 6

struct View {
  Geometry in;
  const unsigned char *seen, *marked;
  int side; // cells of the marked map around
};

// The column k of a matrix turned about a unit vector.
__device__ void turn_column(const double *start, const double *axis, double sine, double versine, int k, double *out) {
  double a = start[k], b = start[3 + k], d = start[6 + k], x = axis[0], y = axis[1], z = axis[2];
  double p = y * d - z * b, q = z * a - x * d, r = x * b - y * a;
  out[k] = a + sine * p + versine * (y * r - z * q);
  out[3 + k] = b + sine * q + versine * (z * p - x * r);
  out[6 + k] = d + sine * r + versine * (x * q - y * p);
}

__device__ double score(const View &view, const double *turn, const double *g0, const int *ring, const int *shell,
                        int reflections, double least) {
  const double *source = view.in.source;
  double scale = view.side / (2.0 * PI);
  int expected = 0, hits = 0;
  for (int k = 0; k < reflections; k++, g0 += 3) {
    double gx = dot(turn, g0[0], g0[1], g0[2]), gy = dot(turn + 3, g0[0], g0[1], g0[2]);
    double gz = dot(turn + 6, g0[0], g0[1], g0[2]);
    Omegas found = solve(gx, gy, gz, source);
    if (found.w == 0)
      continue;
    for (int s = 0; s < 2; s++) {
      double cos = s ? found.cos1 : found.cos0, sin = s ? found.sin1 : found.sin0;
      double eta = towards(source, gx, gy, gz, cos, sin), omega = arctangent(sin, cos);
      if (!is_seen(view.in, view.seen, ring[k], eta, omega))
        continue;
      int row = around((int)((eta + PI) * scale), view.side), column = around((int)((omega + PI) * scale), view.side);
      expected++;
      hits += view.marked[((long long)shell[k] * view.side + row) * view.side + column];
    }
    if (expected >= EARLY && hits < 0.6 * least * expected)
      return 0;
  }
  return expected >= LEAST ? (double)hits / expected : 0;
}

// Blocks: x for the orientations of all fibres of a seed, y for the seeds. `axes` are (seeds, 3); `starts` are (seeds,
// families, 3, 3); of each orientation `family`, `sine` and `versine`.
extern "C" __global__ void score_fibres(const double *source, const double *ranges, int range_count,
                                        const unsigned char *seen, const unsigned char *marked, int side,
                                        const double *g0, const int *ring, const int *shell, int reflections,
                                        double least, const double *axes, const double *starts, int families,
                                        const int *family, const double *sine, const double *versine, int orientations,
                                        double *scores) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  long long seed = blockIdx.y;
  if (at >= orientations)
    return;
  View view = {{source, nullptr, nullptr, ranges, 0, range_count}, seen, marked, side};
  const double *start = starts + 9 * (seed * families + family[at]);
  double turn[9];
  for (int k = 0; k < 3; k++)
    turn_column(start, axes + 3 * seed, sine[at], versine[at], k, turn);
  scores[seed * orientations + at] = score(view, turn, g0, ring, shell, reflections, least);
}
