// Two-time correlations of a dynamic bin, a tile at a time: sums of products of bytes, then their weights.
//
//   fill        events, pixel by pixel      to panels  (planes, quads, pitch): four pixels a word, a frame a column
//   correlate   panels of rows and columns  to a tile  of correlations, float32
//
// Pixels are taken in groups, as `series.Series` has them, each in whole quads of four; of counts above 255 the lower and
// the upper byte are planes of their own. A group's sums are whole numbers of 32 bits, since a group has no more than
// 16384 pixels: 2 * 16384 * 255 * 255 is less than 2^32. They are weighted as on the CPU, group after group and with each
// operation rounded as there, so that the bits are the same.
//
// Compiled with no header, so any NVRTC will do, and with these given by the host: PLANES, 1 or 2; SIDE, frames of a block
// in both directions, of which each of SIDE / 4 squared threads has 4 x 4; QUADS that are in shared memory at once;
// LARGE, 1 where events are words of 64 bits, of which the lower 32 are the count, 0 where they are of 32 and it is the
// lower 8. Offsets into panels are of 64 bits.

#define WARP 32
#define PART (SIDE / 4)

#if LARGE
typedef unsigned long long Event;
#define BITS 32
#else
typedef unsigned Event;
#define BITS 8
#endif

// A warp for each pixel: its events of frames `first` to before `last` to their places. `cells` say where a pixel's are:
// its quad times 4, and its place there. The panels are empty.
extern "C" __global__ void fill(const Event *events, const long long *starts, const int *cells, int pixels, int first,
                                int last, int pitch, long long plane, unsigned char *panels) {
  long long pixel = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / WARP;
  if (pixel >= pixels)
    return;
  long long low = starts[pixel], high = starts[pixel + 1], end = high;
  while (low < high) { // the first event that is not too early
    long long middle = (low + high) / 2;
    if ((long long)(events[middle] >> BITS) < first)
      low = middle + 1;
    else
      high = middle;
  }
  long long quad = (long long)(cells[pixel] / 4) * pitch;
  for (long long n = low + threadIdx.x % WARP; n < end; n += WARP) {
    long long frame = (long long)(events[n] >> BITS);
    if (frame >= last)
      return;
    unsigned char *place = panels + 4 * (quad + frame - first) + cells[pixel] % 4;
    unsigned count = (unsigned)(events[n] & (((Event)1 << BITS) - 1));
    for (int k = 0; k < PLANES; k++)
      place[4 * plane * k] = (unsigned char)(count >> 8 * k);
  }
}

struct Quad {
  unsigned of[4];

  __device__ Quad(uint4 v) : of{v.x, v.y, v.z, v.w} {}
};

// Blocks: x along columns, y along rows, of which there are `width` and `height`, beginning with the frames `left` and
// `top`; `pitch` and `plane` count words. Their part of the tile begins at element `begin`, and rows of the tile are
// `across` apart. `quads[g]` is where group g begins. Elements below the diagonal become 0.
extern "C" __global__ void correlate(const uint4 *rows, const uint4 *columns, int pitch, long long plane,
                                     const int *quads, int groups, int top, int left, int height, int width, int frames,
                                     const double *weights, const double *row_scale, const double *scale, float *tile,
                                     long long begin, int across) {
  __shared__ uint4 of_rows[PLANES][QUADS][PART], of_columns[PLANES][QUADS][PART];
  int row = blockIdx.y * SIDE, column = blockIdx.x * SIDE;
  int down = threadIdx.x / PART * 4, right = threadIdx.x % PART * 4; // of the thread's first element, in the block
  double totals[4][4] = {};

  // A block that is wholly below the diagonal has nothing to work out; all its threads agree on that.
  for (int group = 0; group < groups && left + column + SIDE > top + row; group++) {
    unsigned sums[2 * PLANES - 1][4][4] = {};
    for (int first = quads[group]; first < quads[group + 1]; first += QUADS) {
      __syncthreads();
      for (int item = threadIdx.x; item < PLANES * QUADS * PART; item += blockDim.x) {
        int place = item % PART, n = item / PART % QUADS, k = item / (PART * QUADS);
        bool there = first + n < quads[group + 1];
        long long at = (plane * k + (long long)(first + n) * pitch) / 4 + place;
        of_rows[k][n][place] = there ? rows[at + row / 4] : make_uint4(0, 0, 0, 0);
        of_columns[k][n][place] = there ? columns[at + column / 4] : make_uint4(0, 0, 0, 0);
      }
      __syncthreads();
      for (int n = 0; n < QUADS; n++) {
#pragma unroll
        for (int a = 0; a < PLANES; a++) {
          Quad mine = of_rows[a][n][down / 4];
#pragma unroll
          for (int b = 0; b < PLANES; b++) {
            Quad other = of_columns[b][n][right / 4];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
              for (int j = 0; j < 4; j++)
                sums[a + b][i][j] = __dp4a(mine.of[i], other.of[j], sums[a + b][i][j]);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) {
        int r = row + down + i, c = column + right + j;
        if (r >= height || c >= width)
          continue;
        long long sum = 0;
        for (int k = 0; k < 2 * PLANES - 1; k++)
          sum += (long long)sums[k][i][j] << 8 * k;
        const double *of_group = weights + (long long)group * frames;
        double weight = __dmul_rn(of_group[top + r], of_group[left + c]);
        totals[i][j] = __dadd_rn(totals[i][j], __dmul_rn((double)sum, weight));
      }
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) {
      int r = row + down + i, c = column + right + j;
      if (r < height && c < width) {
        double both = __dmul_rn(row_scale[top + r], scale[left + c]);
        tile[begin + (long long)r * across + c] = left + c < top + r ? 0.0f : (float)__dmul_rn(totals[i][j], both);
      }
    }
}
