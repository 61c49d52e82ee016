// Multi-tau sums of pixels: a warp takes a pixel, and goes on with its sums by the frames of a batch.
//
//   place_counts   events, frame by frame        to rows    (pixels, room): a pixel's counts in the frames of a batch
//   advance        rows, and what is kept        to kept    early, late, sums, totals, see `multitau.advance.State`
//   settle         kept                          to tallies (static bins, delays, 8), see `multitau.result`
//
// Rows put events into the order of pixels and of time without sorting: each goes to a place of its own, so that no order
// of threads matters. A row of few counts is made a list of them by its warp, and is correlated event by event; at each
// further level the list is merged by twos, until going on frame by frame takes less time, as it does for a row of many
// counts from the beginning. Both ways give the same integers, which are those of the CPU: I(t) at level l is the sum of
// 2^l frames; the sums of its products with those 1 to EDGE (at level 0) or EDGE / 2 + 1 to EDGE earlier are wanted.
//
// Compiled with no header, so any NVRTC will do, and with these given by the host: BYTES of a count; EDGE, the longest
// lag of a level, twice the lags of one; TILE, frames of a batch at most; EVENTS, of a list at most; COST, so many frames
// take as long as an event; WARPS of a block that goes on; GROUPS of pixels of a block that settles; MOST, photons of a
// pixel that sums hold for. Values of pixels beyond MOST wrap around, which does no harm: the host refuses them. Offsets
// into whatever all pixels have are of 64 bits.

#define ALL 0xFFFFFFFFu
#define WARP 32
#define LAGS 4 // that are worked out at once, frame by frame
#define WORDS 8

typedef unsigned long long Sum;
#if BYTES == 1
typedef unsigned char Count;
#elif BYTES == 2
typedef unsigned short Count;
#else
typedef unsigned Count;
#endif

// Threads: x for the events of a frame, y the frames. `starts` are those of these frames, `slots` the row of each of the
// `size` pixels of the detector, or -1; `first` is the place of the first frame in a row.
extern "C" __global__ void place_counts(const unsigned *pixels, const Count *counts, const long long *starts,
                                        const int *slots, int size, int room, int first, Count *rows) {
  int frame = blockIdx.y;
  long long event = starts[frame] + (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (event >= starts[frame + 1])
    return;
  unsigned pixel = pixels[event];
  if (pixel >= (unsigned)size || slots[pixel] < 0)
    return;
  rows[(long long)slots[pixel] * room + first + frame] = counts[event];
}

// Of all lanes, for all lanes.
template <class T> __device__ T sum_of_warp(T value) {
  for (int other = WARP / 2; other; other /= 2)
    value += __shfl_xor_sync(ALL, value, other);
  return value;
}

// Counts other than 0 with their frames, the earliest first, behind EDGE places for those before the batch. Merging adds
// one at most: the frame that has waited for its other half.
struct List {
  int times[EDGE + EVENTS + 1];
  unsigned counts[EDGE + EVENTS + 1];
};

// What a warp works with. `values` are of all frames, behind those of EDGE before, and behind LAGS more: lags are worked
// out by fours and may reach beyond EDGE, where nothing is taken of them.
struct Room {
  unsigned values[LAGS + EDGE + TILE];
  List lists[2];
  Sum products[EDGE];
};

// What a pixel keeps of a level, and where its sums are; `before` and `after` count the level's frames.
struct Level {
  int number, before, after, delays;
  unsigned *early, *late;
  Sum *sums;

  __device__ int least_lag() const { return number ? EDGE / 2 + 1 : 1; }

  __device__ void add(int lag, Sum products) const {
    int delay = number * (EDGE / 2) + lag - 1;
    if (lag <= EDGE && delay < delays)
      sums[delay] += products;
  }
};

// Make a list of the counts of a row; how many there are.
__device__ int listed(const unsigned *values, int before, int frames, List &list, int lane) {
  int count = 0;
  for (int first = 0; first < frames; first += WARP) {
    int frame = first + lane;
    unsigned value = frame < frames ? values[frame] : 0;
    unsigned there = __ballot_sync(ALL, value > 0);
    if (value) {
      int place = EDGE + count + __popc(there & ((1u << lane) - 1));
      list.times[place] = before + frame;
      list.counts[place] = value;
    }
    count += __popc(there);
  }
  __syncwarp();
  return count;
}

// One level by the list of its new events, of which there are `count`; the number of events that are merged into
// `merged` for the next.
__device__ int go_on_by_events(const Level &level, int count, List &list, List &merged, Sum *products, int lane) {
  int before = level.before, after = level.after, least = level.least_lag(), kept = after - EDGE;
  for (int n = lane; n < EDGE; n += WARP) {
    list.times[n] = before - EDGE + n;
    list.counts[n] = level.late[n];
    products[n] = 0;
  }
  __syncwarp();
  for (int j = EDGE + lane; j < EDGE + count; j += WARP) {
    int time = list.times[j];
    Sum value = list.counts[j];
    for (int i = j - 1; i >= 0 && time - list.times[i] <= EDGE; i--) {
      int lag = time - list.times[i];
      if (lag >= least && list.counts[i])
        atomicAdd(&products[lag - 1], value * list.counts[i]);
    }
    if (time < EDGE)
      level.early[time] = list.counts[j];
  }
  for (int n = lane; n < EDGE; n += WARP)
    level.late[n] = kept + n < before ? list.counts[kept + n - before + EDGE] : 0;
  __syncwarp();
  for (int n = lane; n < EDGE; n += WARP)
    if (products[n])
      level.add(n + 1, products[n]);
  for (int j = EDGE + lane; j < EDGE + count; j += WARP)
    if (list.times[j] >= kept)
      level.late[list.times[j] - kept] = list.counts[j];

  int made = 0, end = EDGE + count;
  int begin = before % 2 && list.counts[EDGE - 1] ? EDGE - 1 : EDGE; // the frame whose other half is new
  for (int first = begin; first < end; first += WARP) {
    int j = first + lane, half = j < end ? list.times[j] >> 1 : after;
    bool leads = half < after >> 1 && (j == begin || list.times[j - 1] >> 1 != half);
    unsigned leaders = __ballot_sync(ALL, leads);
    if (leads) {
      int place = EDGE + made + __popc(leaders & ((1u << lane) - 1));
      bool both = j + 1 < end && list.times[j + 1] >> 1 == half;
      merged.times[place] = half;
      merged.counts[place] = list.counts[j] + (both ? list.counts[j + 1] : 0);
    }
    made += __popc(leaders);
  }
  __syncwarp();
  return made;
}

// The values of all frames from a list of those that are not 0.
__device__ void spread(const List &list, int count, int before, int frames, unsigned *values, int lane) {
  for (int n = lane; n < frames; n += WARP)
    values[n] = 0;
  __syncwarp();
  for (int j = EDGE + lane; j < EDGE + count; j += WARP)
    values[list.times[j] - before] = list.counts[j];
  __syncwarp();
}

// One level by all its new frames; leaves in their place those of the next. `values` are behind EDGE others.
__device__ void go_on_by_frames(const Level &level, unsigned *values, int lane) {
  int before = level.before, after = level.after, frames = after - before, odd = before % 2;
  for (int n = lane; n < EDGE; n += WARP)
    values[n - EDGE] = level.late[n];
  __syncwarp();
  for (int lag = level.least_lag(); lag <= EDGE; lag += LAGS) {
    Sum sums[LAGS] = {};
    for (int n = lane; n < frames; n += WARP) {
      Sum value = values[n];
#pragma unroll
      for (int k = 0; k < LAGS; k++)
        sums[k] += value * values[n - lag - k];
    }
#pragma unroll
    for (int k = 0; k < LAGS; k++) {
      Sum sum = sum_of_warp(sums[k]);
      if (lane == 0)
        level.add(lag + k, sum);
    }
  }
  for (int n = lane; n < frames && before + n < EDGE; n += WARP)
    level.early[before + n] = values[n];
  for (int n = lane; n < EDGE; n += WARP)
    level.late[n] = values[frames - EDGE + n];
  int halves = (after >> 1) - (before >> 1);
  for (int first = 0; first < halves; first += WARP) {
    int n = first + lane;
    unsigned value = n < halves ? values[2 * n - odd] + values[2 * n + 1 - odd] : 0;
    __syncwarp(); // the last places that were read are the first to be written
    if (n < halves)
      values[n] = value;
    __syncwarp();
  }
}

// A warp for each pixel: take `frames` frames after the first `before` into its sums, and leave its row empty. `most`
// becomes the photons of the pixel that has most of them, where that are more than MOST.
extern "C" __global__ void advance(Count *rows, int room, int before, int frames, int pixels, int levels, int delays,
                                   unsigned *early, unsigned *late, Sum *sums, Sum *totals, Sum *most) {
  __shared__ Room rooms[WARPS];
  int lane = threadIdx.x % WARP;
  long long pixel = (long long)blockIdx.x * WARPS + threadIdx.x / WARP;
  if (pixel >= pixels)
    return; // the whole warp, and no barrier of a block comes
  Room &mine = rooms[threadIdx.x / WARP];
  unsigned *values = mine.values + LAGS + EDGE;
  Count *row = rows + pixel * room;

  int events = 0;
  Sum total = 0;
  for (int n = lane; n < frames; n += WARP) {
    unsigned value = row[n];
    values[n] = value;
    total += value;
    events += value > 0;
    if (value)
      row[n] = 0;
  }
  events = sum_of_warp(events);
  total = sum_of_warp(total) + totals[pixel];
  if (total == 0)
    return; // as all that is kept of it
  __syncwarp();
  if (lane == 0) {
    totals[pixel] = total;
    if (total > MOST)
      atomicMax(most, total);
  }
  for (int n = lane; n < LAGS; n += WARP)
    mine.values[n] = 0;

  bool by_events = events <= EVENTS && events * COST <= frames;
  int which = 0;
  if (by_events)
    events = listed(values, before, frames, mine.lists[0], lane);
  for (int k = 0; k < levels; k++) {
    long long place = (pixel * levels + k) * EDGE;
    Level level = {k, before >> k, (before + frames) >> k, delays, early + place, late + place, sums + pixel * delays};
    int count = level.after - level.before;
    if (count == 0)
      return;
    if (by_events && events * COST > count) {
      spread(mine.lists[which], events, level.before, count, values, lane);
      by_events = false;
    }
    if (by_events) {
      List &list = mine.lists[which], &merged = mine.lists[1 - which];
      events = go_on_by_events(level, events, list, merged, mine.products, lane);
      which = 1 - which;
    } else {
      go_on_by_frames(level, values, lane);
    }
  }
}

// The words of a pixel at a delay, as the CPU has them: the sum of the products (lower 32 bits, the rest), of the earlier
// and of the later values, and the first and the second moment of the pixel's own g2 times `scale`, as fractions (upper
// and lower 38 bits). No multiplication and addition are made one, since the rounding is that of the CPU.
struct Words {
  Sum of[WORDS];

  __device__ void add_fraction(int word, double value) {
    double large = __dmul_rn(value, 274877906944.0);
    long long whole = (long long)large;
    of[word] += (Sum)whole;
    of[word + 1] += (Sum)(long long)__dmul_rn(__dsub_rn(large, (double)whole), 274877906944.0);
  }

  __device__ void add(Sum products, long long earlier, long long later, double terms) {
    double below = __dmul_rn((double)earlier, (double)later);
    double own = __ddiv_rn(__dmul_rn((double)(long long)products, terms), below > 0 ? below : 1.0);
    of[0] += products & ALL;
    of[1] += products >> 32;
    of[2] += (Sum)earlier;
    of[3] += (Sum)later;
    add_fraction(4, own);
    add_fraction(6, __dmul_rn(own, own));
  }
};

// Blocks: x for some pixels of one bin, `firsts` to before `lasts`; y for 32 delays. Threads: GROUPS of a warp, whose
// lanes have a delay each and go through every GROUPSth pixel. `level_of` and `lag_of` say what a delay is; `frames` are
// those of the series. Each block adds once to each word of its bin.
extern "C" __global__ void settle(const unsigned *early, const unsigned *late, const Sum *sums, const Sum *totals,
                                  const int *firsts, const int *lasts, const int *bins, const int *level_of,
                                  const int *lag_of, int frames, int levels, int delays, double scale, Sum *tallies) {
  __shared__ Sum shared[GROUPS][WORDS][WARP];
  int lane = threadIdx.x % WARP, group = threadIdx.x / WARP, delay = blockIdx.y * WARP + lane;
  Words words = {};
  if (delay < delays) {
    int level = level_of[delay], lag = lag_of[delay];
    double terms = __dmul_rn((double)((frames >> level) - lag), scale);
    for (int pixel = firsts[blockIdx.x] + group; pixel < lasts[blockIdx.x]; pixel += GROUPS) {
      long long whole = (long long)totals[pixel];
      if (whole == 0)
        continue; // nothing to add
      const unsigned *first = early + ((long long)pixel * levels + level) * EDGE;
      const unsigned *last = late + (long long)pixel * levels * EDGE;
      for (int k = 0; k < level; k++, last += EDGE)
        if ((frames >> k) % 2)
          whole -= last[EDGE - 1]; // has no other half
      long long earlier = whole, later = whole;
      for (int n = 0; n < lag; n++) {
        earlier -= last[EDGE - 1 - n];
        later -= first[n];
      }
      words.add(sums[(long long)pixel * delays + delay], earlier, later, terms);
    }
  }
  for (int word = 0; word < WORDS; word++)
    shared[group][word][lane] = words.of[word];
  __syncthreads();
  for (int item = threadIdx.x; item < WORDS * WARP; item += blockDim.x) {
    int word = item / WARP, column = blockIdx.y * WARP + item % WARP;
    Sum sum = 0;
    for (int n = 0; n < GROUPS; n++)
      sum += shared[n][word][item % WARP];
    if (column < delays && sum)
      atomicAdd(&tallies[((long long)bins[blockIdx.x] * delays + column) * WORDS + word], sum);
  }
}
