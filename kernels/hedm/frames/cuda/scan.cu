// Which pixels of frames lie above their limits, and their counts less the dark, in the order of the detector.
//
//   mark     frames (frames, size)               to bits  (frames, pieces, 32): a bit for each pixel above its limit
//                                                   found (frames, pieces): how many of a piece
//                                                   told  (frames, 3): saturated pixels, NaN, and whether any is not 0
//   gather   frames, bits, starts (frames, pieces) to pixels, values, one after the other
//
// A warp takes a piece of a frame, 32 times 32 pixels. The host adds up what was found, so that the second kernel knows
// where each piece has to put its pixels: their order is that of the detector, whatever the order of warps. Pieces with
// nothing in them, nearly all, are passed over.
//
// Compiled with no header, so any NVRTC will do, and with these given by the host: KIND of a pixel, 0 uint16, 1 uint32,
// 2 int32, 3 float32; WARPS of a block. A frame has less than 2^31 pixels; what all frames have is counted by 64 bits.

#define ALL 0xFFFFFFFFu
#define WARP 32
#define PIECE (WARP * WARP)

#if KIND == 0
typedef unsigned short Pixel;
#elif KIND == 1
typedef unsigned Pixel;
#elif KIND == 2
typedef int Pixel;
#else
typedef float Pixel;
#endif

#if KIND == 1
#define COUNTS(value) ((value) != ALL) // which stands for a pixel that does not count
#else
#define COUNTS(value) true
#endif
#if KIND == 3
#define IS_NAN(value) ((value) != (value))
#else
#define IS_NAN(value) false
#endif

// Of all lanes, for all lanes.
__device__ int sum_of_warp(int value) {
  for (int other = WARP / 2; other; other /= 2)
    value += __shfl_xor_sync(ALL, value, other);
  return value;
}

// Blocks: x for the pieces of a frame, y the frames. A warp with no piece has nothing to do.
extern "C" __global__ void mark(const Pixel *frames, const Pixel *above, int size, int pieces, double saturation,
                                unsigned *bits, int *found, int *told) {
  int lane = threadIdx.x % WARP, piece = blockIdx.x * WARPS + threadIdx.x / WARP, frame = blockIdx.y;
  if (piece >= pieces)
    return;
  const Pixel *here = frames + (long long)frame * size;
  unsigned kept = 0;
  int full = 0, odd = 0, some = 0, count = 0;
  for (int n = 0; n < WARP; n++) {
    int pixel = piece * PIECE + n * WARP + lane;
    bool yes = false;
    if (pixel < size) {
      Pixel value = here[pixel];
      yes = value > above[pixel] && COUNTS(value);
      full += yes && value >= saturation;
      odd += IS_NAN(value);
      some |= value != 0;
    }
    unsigned word = __ballot_sync(ALL, yes);
    count += __popc(word);
    if (lane == n)
      kept = word;
  }
  full = sum_of_warp(full);
  odd = sum_of_warp(odd);
  some = __ballot_sync(ALL, some) != 0;
  long long at = (long long)frame * pieces + piece;
  bits[at * WARP + lane] = kept;
  if (lane)
    return;
  found[at] = count;
  if (full)
    atomicAdd(&told[3 * frame], full);
  if (odd)
    atomicAdd(&told[3 * frame + 1], odd);
  if (some)
    atomicAdd(&told[3 * frame + 2], 1);
}

// Blocks as above. `starts` is where the pixels of a piece begin, or -1: nothing is wanted of it.
extern "C" __global__ void gather(const Pixel *frames, const float *dark, const unsigned *bits, const long long *starts,
                                  int size, int pieces, int *pixels, float *values) {
  int lane = threadIdx.x % WARP, piece = blockIdx.x * WARPS + threadIdx.x / WARP, frame = blockIdx.y;
  if (piece >= pieces)
    return;
  long long at = (long long)frame * pieces + piece, out = starts[at];
  if (out < 0)
    return;
  const Pixel *here = frames + (long long)frame * size;
  for (int n = 0; n < WARP; n++) {
    unsigned word = bits[at * WARP + n];
    if (word >> lane & 1) {
      int pixel = piece * PIECE + n * WARP + lane;
      long long place = out + __popc(word & ((1u << lane) - 1));
      pixels[place] = pixel;
      values[place] = (float)here[pixel] - dark[pixel];
    }
    out += __popc(word);
  }
}
