// What CUDA C has and C++ has not, so that a processor can run our kernels, a thread after the other.
//
// The threads of a block are fibers that change over at barriers, and those of a warp where they meet to exchange
// something; blocks follow each other, so `static` is as good as `__shared__`. A block whose threads do not all come to
// a barrier is refused, and so is a warp whose lanes do not all come to the same meeting. Run backwards, the last thread
// of the last block goes first: a kernel that gives other bits then misses a barrier or an atomic operation.

#pragma once

#include <cmath>
#include <csetjmp>
#include <cstring>
#include <string>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static

struct float2 {
  float x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct Index {
  unsigned x, y, z;
};
static Index blockIdx, threadIdx, blockDim, gridDim;

inline float2 make_float2(float x, float y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline float cospif(float x) { return (float)std::cos(M_PI * x); }
inline void sincospif(float x, float *sine, float *cosine) {
  *sine = (float)std::sin(M_PI * x);
  *cosine = (float)std::cos(M_PI * x);
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned sum) {
  for (int n = 0; n < 32; n += 8)
    sum += (a >> n & 255) * (b >> n & 255);
  return sum;
}
template <class T> T atomicAdd(T *at, T more) {
  T before = *at;
  *at += more;
  return before;
}
template <class T> T atomicMax(T *at, T other) {
  T before = *at;
  *at = max(before, other);
  return before;
}

namespace shim {

constexpr size_t STACK = 64 << 10;
constexpr int WARP = 32;

enum State { READY, AT_BARRIER, AT_MEETING, ENDED };

struct Fiber {
  ucontext_t context;
  jmp_buf place;
  std::vector<char> stack;
  State state;
  bool begun;
  int line; // of the meeting it is at
};

// What the lanes of a warp have brought to a meeting. The next meeting has the other row: a lane may come to it before
// another has read what was brought to this one, but not to the one after.
struct Warp {
  unsigned long long brought[2][WARP];
  unsigned meetings[WARP]; // of each lane
};

static ucontext_t first_scheduler;
static jmp_buf scheduler;
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static Fiber *running = nullptr;
static bool met; // a barrier or another lane, in this block
static void (*body)(void *);
static void *given;

struct Alone {}; // thrown by a thread that is run as if it met no other, and does

inline void fiber() {
  body(given);
  running->state = ENDED;
  _longjmp(scheduler, 1);
}

// Contexts are entered once by ucontext, and changed by _longjmp from there on, which asks nothing of the system.
inline void go_on(int thread) {
  running = &fibers[thread];
  threadIdx = {(unsigned)thread, 0, 0};
  if (_setjmp(scheduler))
    return;
  if (running->begun)
    _longjmp(running->place, 1);
  running->begun = true;
  swapcontext(&first_scheduler, &running->context);
}

inline void wait(State state, int line) {
  met = true;
  if (!running)
    throw Alone();
  Index mine = threadIdx;
  running->state = state;
  running->line = line;
  if (!_setjmp(running->place))
    _longjmp(scheduler, 1);
  threadIdx = mine;
}

// Let those go on that have met all that they were to meet. False when nobody can.
inline bool released() {
  const int threads = (int)fibers.size();
  int at_barrier = 0, some = 0;
  for (Fiber &each : fibers)
    at_barrier += each.state == AT_BARRIER;
  if (at_barrier == threads) {
    for (Fiber &each : fibers)
      each.state = READY;
    return true;
  }
  for (int first = 0; first < threads; first += WARP) {
    int last = min(first + WARP, threads), here = 0;
    for (int n = first; n < last; n++)
      here += fibers[n].state == AT_MEETING && fibers[n].line == fibers[first].line;
    if (here == last - first && here == WARP) {
      for (int n = first; n < last; n++)
        fibers[n].state = READY;
      some++;
    }
  }
  return some > 0;
}

// False when a barrier or a meeting was left out by some.
inline bool block_of_fibers(bool backwards) {
  const int threads = (int)fibers.size();
  for (Fiber &each : fibers) {
    getcontext(&each.context);
    each.stack.resize(STACK);
    each.context.uc_stack.ss_sp = each.stack.data();
    each.context.uc_stack.ss_size = STACK;
    each.state = READY;
    each.begun = false;
    makecontext(&each.context, fiber, 0);
  }
  warps.assign((threads + WARP - 1) / WARP, Warp());
  for (;;) {
    int ended = 0;
    for (int n = 0; n < threads; n++) {
      int thread = backwards ? threads - 1 - n : n;
      if (fibers[thread].state == READY)
        go_on(thread);
      ended += fibers[thread].state == ENDED;
    }
    running = nullptr;
    if (ended == threads)
      return true;
    if (!released())
      return false;
  }
}

// False when a thread met another: then the block is to be run again, which changes nothing where threads only put what
// they have worked out, and shows where they do more.
inline bool block_alone(bool backwards) {
  for (unsigned k = 0; k < blockDim.x; k++) {
    threadIdx = {backwards ? blockDim.x - 1 - k : k, 0, 0};
    try {
      body(given);
    } catch (Alone &) {
      return false;
    }
  }
  return true;
}

// A kernel that was seen to meet no barrier and no other lane in its first block is run without fibers until it does.
inline int run(const unsigned *grid, const unsigned *block, bool backwards) {
  fibers.resize(block[0]);
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], 1, 1};
  met = true;
  const size_t blocks = (size_t)grid[0] * grid[1];
  for (size_t n = 0; n < blocks; n++) {
    size_t at = backwards ? blocks - 1 - n : n;
    blockIdx = {(unsigned)(at % grid[0]), (unsigned)(at / grid[0]), 0};
    if (!met && block_alone(backwards))
      continue;
    met = n > 0;
    if (!block_of_fibers(backwards))
      return 1;
  }
  return 0;
}

template <class T> constexpr const char *code() {
  using Plain = std::remove_const_t<T>;
  if (std::is_same_v<Plain, float>) return "float32 ";
  if (std::is_same_v<Plain, double>) return "float64 ";
  if (std::is_same_v<Plain, int>) return "int32 ";
  if (std::is_same_v<Plain, unsigned>) return "uint32 ";
  if (std::is_same_v<Plain, long long>) return "int64 ";
  if (std::is_same_v<Plain, unsigned long long>) return "uint64 ";
  if (std::is_same_v<Plain, unsigned char>) return "uint8 ";
  if (std::is_same_v<Plain, unsigned short>) return "uint16 ";
  if (std::is_same_v<Plain, uint4>) return "uint32 ";
  if (std::is_same_v<Plain, float2>) return "complex64 ";
  return "unknown ";
}

template <class T> std::string parameter() {
  if constexpr (std::is_pointer_v<T>)
    return std::string("*") + code<std::remove_pointer_t<T>>();
  else
    return code<T>();
}

template <class... A> std::string signature(void (*)(A...)) { return (parameter<A>() + ... + ""); }

template <class... A> struct Call {
  void (*kernel)(A...);
  void **arguments;

  template <size_t... I> void with(std::index_sequence<I...>) { kernel(*static_cast<A *>(arguments[I])...); }
  static void now(void *self) { static_cast<Call *>(self)->with(std::index_sequence_for<A...>{}); }
};

template <class... A>
int launch(void (*kernel)(A...), const unsigned *grid, const unsigned *block, void **arguments, int backwards) {
  Call<A...> call{kernel, arguments};
  body = &Call<A...>::now;
  given = &call;
  return run(grid, block, backwards != 0);
}

// What each lane of this warp has brought here, all of which have come; `line` tells the place.
inline const unsigned long long *meeting(unsigned long long mine, int line) {
  if (!running)
    throw Alone();
  int thread = (int)threadIdx.x, lane = thread % WARP;
  Warp &warp = warps[thread / WARP];
  unsigned long long *row = warp.brought[warp.meetings[lane]++ % 2];
  row[lane] = mine;
  wait(AT_MEETING, line);
  return row;
}

template <class T> T shuffled(T value, int from, int line) {
  static_assert(sizeof(T) <= 8);
  unsigned long long bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = meeting(bits, line)[from & (WARP - 1)];
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

} // namespace shim

inline void __syncthreads() { shim::wait(shim::AT_BARRIER, 0); }

// Of whole warps alone: masks are not looked at, and all lanes have to come.
inline void __syncwarp(int line = __builtin_LINE()) { shim::meeting(0, line); }
template <class T> T __shfl_sync(unsigned, T value, int from, int line = __builtin_LINE()) {
  return shim::shuffled(value, from, line);
}
template <class T> T __shfl_xor_sync(unsigned, T value, int other, int line = __builtin_LINE()) {
  return shim::shuffled(value, (int)(threadIdx.x % shim::WARP) ^ other, line);
}
inline unsigned __ballot_sync(unsigned, int yes, int line = __builtin_LINE()) {
  const unsigned long long *row = shim::meeting(yes != 0, line);
  unsigned bits = 0;
  for (int lane = 0; lane < shim::WARP; lane++)
    bits |= (unsigned)row[lane] << lane;
  return bits;
}

#define EXPORT(kernel)                                                                                                 \
  extern "C" int launch_##kernel(const unsigned *grid, const unsigned *block, void **arguments, int backwards) {       \
    return shim::launch(kernel, grid, block, arguments, backwards);                                                    \
  }                                                                                                                    \
  extern "C" const char *signature_##kernel() {                                                                        \
    static const std::string said = shim::signature(kernel);                                                           \
    return said.c_str();                                                                                               \
  }
