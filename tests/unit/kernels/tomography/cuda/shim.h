// What CUDA C has and C++ has not, so that a processor can run our kernels, a thread after the other.
//
// The threads of a block are fibers that change over at barriers; blocks follow each other, so `static` is as good as
// `__shared__`. A block whose threads do not all come to a barrier is refused. Run backwards, the last thread goes first:
// a kernel that gives other bits then misses a barrier.

#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__ static

struct float2 {
  float x, y;
};
struct Index {
  unsigned x, y, z;
};
static Index blockIdx, threadIdx, blockDim, gridDim;

inline float2 make_float2(float x, float y) { return {x, y}; }
template <class T> T min(T a, T b) { return b < a ? b : a; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline float cospif(float x) { return (float)std::cos(M_PI * x); }
inline void sincospif(float x, float *sine, float *cosine) {
  *sine = (float)std::sin(M_PI * x);
  *cosine = (float)std::cos(M_PI * x);
}
inline unsigned atomicAdd(unsigned *at, unsigned more) {
  unsigned before = *at;
  *at += more;
  return before;
}

namespace shim {

constexpr size_t STACK = 64 << 10;

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool ended;
};

static ucontext_t scheduler;
static Fiber *running = nullptr;
static bool met; // a barrier, in this block
static void (*body)(void *);
static void *given;

inline void fiber() {
  body(given);
  running->ended = true;
  swapcontext(&running->context, &scheduler);
}

// False when a barrier was left out by some.
inline bool block_of_fibers(std::vector<Fiber> &fibers, bool backwards) {
  const int threads = (int)fibers.size();
  for (Fiber &each : fibers) {
    getcontext(&each.context);
    each.stack.resize(STACK);
    each.context.uc_stack.ss_sp = each.stack.data();
    each.context.uc_stack.ss_size = STACK;
    each.ended = false;
    makecontext(&each.context, fiber, 0);
  }
  for (int ended = 0; ended < threads;) {
    if (ended)
      return false;
    for (int n = 0; n < threads; n++) {
      int thread = backwards ? threads - 1 - n : n;
      running = &fibers[thread];
      threadIdx = {(unsigned)thread, 0, 0};
      swapcontext(&scheduler, &running->context);
      ended += running->ended;
    }
  }
  running = nullptr;
  return true;
}

// A kernel that was seen to meet no barrier in its first block is run without fibers from there on.
inline int run(const unsigned *grid, const unsigned *block, bool backwards) {
  std::vector<Fiber> fibers(block[0]);
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], 1, 1};
  met = true;
  for (unsigned y = 0; y < grid[1]; y++)
    for (unsigned x = 0; x < grid[0]; x++) {
      blockIdx = {x, y, 0};
      if (met) {
        met = false;
        if (!block_of_fibers(fibers, backwards))
          return 1;
      } else {
        for (unsigned thread = 0; thread < block[0]; thread++) {
          threadIdx = {thread, 0, 0};
          body(given);
        }
      }
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
  if (std::is_same_v<Plain, unsigned short>) return "uint16 ";
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

} // namespace shim

inline void __syncthreads() {
  shim::met = true;
  Index mine = threadIdx;
  swapcontext(&shim::running->context, &shim::scheduler);
  threadIdx = mine;
}

#define EXPORT(kernel)                                                                                                 \
  extern "C" int launch_##kernel(const unsigned *grid, const unsigned *block, void **arguments, int backwards) {       \
    return shim::launch(kernel, grid, block, arguments, backwards);                                                    \
  }                                                                                                                    \
  extern "C" const char *signature_##kernel() {                                                                        \
    static const std::string said = shim::signature(kernel);                                                           \
    return said.c_str();                                                                                               \
  }
