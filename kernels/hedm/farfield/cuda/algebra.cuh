// What a warp does to the small matrices of a grain: the sums of `kernels.hedm.farfield.refinement` and `paircells` in
// their order, so that the bits are the same.

#define ALL 0xFFFFFFFFu
#define WARP 32

__device__ int sum_of_warp(int value) {
  for (int other = WARP / 2; other; other /= 2)
    value += __shfl_xor_sync(ALL, value, other);
  return value;
}

// The Cholesky factor of the first n rows of a symmetric matrix in shared memory, in its lower triangle; a lane has a row.
// False, for all lanes, where a pivot is lost in rounding.
__device__ bool factor(double *matrix, int pitch, int n, int lane) {
  for (int j = 0; j < n; j++) {
    double pivot = matrix[j * pitch + j], least = 1e-12 * pivot;
    double total = lane < n ? matrix[lane * pitch + j] : 0;
    for (int i = 0; i < j; i++) {
      double other = matrix[j * pitch + i];
      pivot -= other * other;
      if (lane < n)
        total -= matrix[lane * pitch + i] * other;
    }
    if (pivot <= least || !(pivot > 0))
      return false;
    double root = sqrt(pivot);
    __syncwarp(); // the diagonal has been read
    if (lane == j)
      matrix[j * pitch + j] = root;
    else if (lane > j && lane < n)
      matrix[lane * pitch + j] = total / root;
    __syncwarp();
  }
  return true;
}

// Solve with the factor, by one lane.
__device__ void substitute(const double *lower, int pitch, int n, const double *right, double *out) {
  for (int k = 0; k < n; k++) {
    double total = right[k];
    for (int i = 0; i < k; i++)
      total -= lower[k * pitch + i] * out[i];
    out[k] = total / lower[k * pitch + k];
  }
  for (int k = n - 1; k >= 0; k--) {
    double total = out[k];
    for (int i = k + 1; i < n; i++)
      total -= lower[i * pitch + k] * out[i];
    out[k] = total / lower[k * pitch + k];
  }
}
