// Direct Fourier reconstruction by gridding: the steps between the transforms, which are cuFFT's.
//
// Two real slices travel as the real and the imaginary part of one complex slice, a "pair", so that no transform of real
// numbers is needed. A chunk of pairs goes through the steps together:
//
//   take_lines      sinograms                to cells  (pairs, angles, padded)       then transformed along `padded`
//   take_counts     the same from counts, through flats, darks, bad pixels and logarithm
//   filter_lines    cells                    to lines  (pairs, angles, padded + 1)   frequency 0 in the middle
//   spread_lines    lines                    to grid   (pairs, length, length)       then transformed in both directions
//   finish_slices   grid                     to slices (slices, size, size)
//
// Compiled with no header, so any NVRTC will do, and with these given by the host: TAPS, width of the spreading kernel;
// DEGREE of its polynomials, whose coefficients lie 8 (one per tap) for each power; TILE, cells of the grid that a block
// fills in both directions; PAIRS that share a block, and with it the weights of its samples. Each sum has one order, so
// the bits do not depend on how the device shares out the work. Offsets within one pair fit into an int; the host sees
// to that.

#define PITCH (TILE + TAPS) // of a tile's rows in shared memory, so that a window's rows lie in other banks
#define BATCH 64            // samples whose weights are worked out at once
#define EDGE 4              // columns whose mean goes on beyond the detector

// The line integrals of sinograms, (slices, angles, columns).
struct Lines {
  const float *values;
  int angles, columns;

  __device__ float at(int slice, int angle, int column) const {
    return values[((long long)slice * angles + angle) * columns + column];
  }
};

// The line integrals of counts, (angles, slices, columns); the field is (rows, columns), of which `first` is the row of
// the first slice. `left` and `right` are the nearest good columns: the pixel itself where it is good, -1 where there is
// none.
struct Counts {
  const unsigned short *counts;
  const float *dark, *response;
  const int *left, *right;
  int first, slices, columns;
  float floor;

  __device__ float transmission(int slice, int angle, int column) const {
    int pixel = (first + slice) * columns + column;
    float count = counts[((long long)angle * slices + slice) * columns + column];
    return (count - dark[pixel]) / response[pixel];
  }

  __device__ float mended(int slice, int angle, int column) const {
    int pixel = (first + slice) * columns + column, a = left[pixel], b = right[pixel];
    if (a == column)
      return transmission(slice, angle, column);
    if (a < 0 && b < 0)
      return 1.0f;
    if (a < 0 || b < 0)
      return transmission(slice, angle, a < 0 ? b : a);
    float from = transmission(slice, angle, a), to = transmission(slice, angle, b);
    return from + (to - from) * ((float)(column - a) / (float)(b - a));
  }

  __device__ float at(int slice, int angle, int column) const {
    return -logf(fmaxf(mended(slice, angle, column), floor));
  }
};

// One pair's line integrals, weighted; a last slice without a partner has 0 beside it.
template <class Source>
__device__ float2 both(const Source &source, int slices, int pair, int angle, int column, const float *column_weights) {
  float weight = column_weights[column];
  float first = source.at(2 * pair, angle, column) * weight;
  float second = 2 * pair + 1 < slices ? source.at(2 * pair + 1, angle, column) * weight : 0.0f;
  return make_float2(first, second);
}

// One cell. Beyond the detector come zeros or, with `edge`, the mean of the outermost columns of either end, the one
// fading into the other.
template <class Source>
__device__ void take(const Source &source, int slices, int angles, int columns, int padded, int edge,
                     const float *column_weights, float2 *cells) {
  int at = blockIdx.x * blockDim.x + threadIdx.x, pair = blockIdx.y;
  if (at >= angles * padded)
    return;
  int angle = at / padded, column = at % padded;
  float2 value = make_float2(0.0f, 0.0f);
  if (column < columns) {
    value = both(source, slices, pair, angle, column, column_weights);
  } else if (edge) {
    int width = min(EDGE, columns), beyond = column - columns, extra = padded - columns;
    float taper = 0.5f + 0.5f * cospif((float)(beyond + 1) / (float)(extra + 1));
    for (int c = 0; c < width; c++) {
      float2 a = both(source, slices, pair, angle, c, column_weights);
      float2 b = both(source, slices, pair, angle, columns - 1 - c, column_weights);
      value.x += (b.x * taper + a.x * (1.0f - taper)) / width;
      value.y += (b.y * taper + a.y * (1.0f - taper)) / width;
    }
  }
  cells[(long long)pair * angles * padded + at] = value;
}

extern "C" __global__ void take_lines(const float *sinograms, int slices, int angles, int columns, int padded, int edge,
                                      const float *column_weights, float2 *cells) {
  Lines source = {sinograms, angles, columns};
  take(source, slices, angles, columns, padded, edge, column_weights, cells);
}

// `floored` counts the transmissions below `floor`.
extern "C" __global__ void take_counts(const unsigned short *counts, const float *dark, const float *response,
                                       const int *left, const int *right, int first, float floor,
                                       unsigned int *floored, int slices, int angles, int columns, int padded, int edge,
                                       const float *column_weights, float2 *cells) {
  Counts source = {counts, dark, response, left, right, first, slices, columns, floor};
  take(source, slices, angles, columns, padded, edge, column_weights, cells);
  int at = blockIdx.x * blockDim.x + threadIdx.x, pair = blockIdx.y;
  if (at < angles * padded && at % padded < columns) {
    for (int slice = 2 * pair; slice < min(2 * pair + 2, slices); slice++) {
      if (source.mended(slice, at / padded, at % padded) < floor)
        atomicAdd(floored, 1u);
    }
  }
}

// Each frequency times the filter's response and the angle's weight, turned to where the axis is. Frequencies of a line
// go from -padded / 2 to padded / 2: the highest is there twice, and counts half on either side.
extern "C" __global__ void filter_lines(const float2 *cells, int pairs, int angles, int padded, const float *response,
                                        const float *weights, const double *shifts, float2 *lines) {
  int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= angles * (padded + 1))
    return;
  int angle = at / (padded + 1), n = at % (padded + 1), half = padded / 2, frequency = n - half;
  double turns = shifts[angle] * frequency / padded; // hundreds, of which only the fraction counts
  float factor = response[n] * weights[angle], real, imaginary;
  sincospif(2.0f * (float)(turns - rint(turns)), &imaginary, &real);
  real *= factor;
  imaginary *= factor;
  const float2 *source = cells + (long long)angle * padded + (frequency < 0 ? frequency + padded : frequency);
  for (int pair = 0; pair < pairs; pair++) {
    float2 v = source[(long long)pair * angles * padded];
    float2 turned = make_float2(v.x * real - v.y * imaginary, v.x * imaginary + v.y * real);
    lines[(long long)pair * angles * (padded + 1) + at] = turned;
  }
}

// The samples of all lines spread onto the grid, a tile by each block, from the list of the samples that reach it
// (`tiles.py`): `samples[starts[tile]]` and so on, each its place in the lines of a pair. A window of TAPS x TAPS cells
// meets each remainder of row and column by TAPS once, so each thread has the cells of one remainder to itself: sums
// grow in shared memory without a race, an atomic operation or a barrier between samples, and each cell of the grid is
// written once. `order` has the fullest tiles first, since the middle takes the longest.
extern "C" __global__ void spread_lines(const float2 *lines, int pairs, int angles, int padded, const double *across,
                                        const double *down, const float *kernel, const long long *starts,
                                        const int *samples, const int *order, int length, float2 *grid) {
  __shared__ float2 sums[PAIRS][TILE * PITCH];
  __shared__ float2 values[PAIRS][BATCH];
  __shared__ float weights[2][BATCH][TAPS]; // of columns, of rows
  __shared__ int places[2][BATCH];          // of the first tap, within the tile

  int tile = order[blockIdx.x], tiles = (length + TILE - 1) / TILE, half = padded / 2;
  int top = tile / tiles * TILE, left = tile % tiles * TILE;
  int group = blockIdx.y * PAIRS, mine = threadIdx.x / (TAPS * TAPS);
  int remainder[2] = {(int)threadIdx.x % TAPS, (int)threadIdx.x / TAPS % TAPS};
  int held = min(PAIRS, pairs - group);
  const long long plane = (long long)angles * (padded + 1);

  for (int cell = threadIdx.x; cell < TILE * PITCH; cell += blockDim.x)
    for (int pair = 0; pair < PAIRS; pair++)
      sums[pair][cell] = make_float2(0.0f, 0.0f);

  for (long long first = starts[tile]; first < starts[tile + 1]; first += BATCH) {
    int count = (int)min((long long)BATCH, starts[tile + 1] - first);
    __syncthreads();
    for (int item = threadIdx.x; item < 2 * count; item += blockDim.x) {
      int direction = item % 2, s = item / 2, sample = samples[first + s];
      int angle = sample / (padded + 1), n = sample % (padded + 1) - half;
      // Rounded as on the host, which has decided by this in which tiles the sample is.
      double from = __dsub_rn(__dmul_rn(n, direction ? down[angle] : across[angle]), 0.5 * TAPS);
      double cell = ceil(from);
      int place = (int)cell + length / 2 - (direction ? top : left);
      if (place < 1 - TAPS)
        place += length; // the grid is a period of what it stands for
      if (place >= TILE)
        place -= length;
      places[direction][s] = place;
      float t = (float)(2.0 * (cell - from) - 1.0);
      for (int tap = 0; tap < TAPS; tap++) {
        float weight = kernel[tap];
        for (int power = 1; power <= DEGREE; power++)
          weight = weight * t + kernel[8 * power + tap];
        weights[direction][s][tap] = weight;
      }
    }
    for (int item = threadIdx.x; item < held * count; item += blockDim.x) {
      int pair = item / count, s = item % count;
      values[pair][s] = lines[(group + pair) * plane + samples[first + s]];
    }
    __syncthreads();
    if (mine < held) {
      for (int s = 0; s < count; s++) {
        int column = places[0][s], row = places[1][s];
        // how far beyond the first tap the window's cell of this thread lies
        int i = remainder[0] - (column + TAPS) % TAPS, j = remainder[1] - (row + TAPS) % TAPS;
        i += i < 0 ? TAPS : 0;
        j += j < 0 ? TAPS : 0;
        column += i;
        row += j;
        if ((unsigned)column < TILE && (unsigned)row < TILE) {
          float weight = weights[0][s][i] * weights[1][s][j];
          float2 value = values[mine][s], *sum = &sums[mine][row * PITCH + column];
          sum->x += weight * value.x;
          sum->y += weight * value.y;
        }
      }
    }
  }
  __syncthreads();
  for (int pair = 0; pair < held; pair++) {
    float2 *target = grid + (long long)(group + pair) * length * length;
    for (int cell = threadIdx.x; cell < TILE * TILE; cell += blockDim.x) {
      int row = cell / TILE, column = cell % TILE;
      if (top + row < length && left + column < length)
        target[(long long)(top + row) * length + left + column] = sums[pair][row * PITCH + column];
    }
  }
}

// The kernel's transform divided out (`shape` is one over it), cut to the slice. `reach`: four times the square of the
// radius beyond which voxels are 0.
extern "C" __global__ void finish_slices(const float2 *grid, int slices, int size, int length, const float *shape,
                                         int reach, float *out) {
  int at = blockIdx.x * blockDim.x + threadIdx.x, pair = blockIdx.y;
  if (at >= size * size)
    return;
  int y = at / size, x = at % size, before = size / 2;
  int down = 2 * y - (size - 1), right = 2 * x - (size - 1);
  int row = y < before ? y - before + length : y - before, column = x < before ? x - before + length : x - before;
  float factor = down * down + right * right <= reach ? shape[y] * shape[x] : 0.0f;
  float2 value = grid[((long long)pair * length + row) * length + column];
  out[(long long)2 * pair * size * size + at] = value.x * factor;
  if (2 * pair + 1 < slices)
    out[(long long)(2 * pair + 1) * size * size + at] = value.y * factor;
}
