// The forward model of `kernels.hedm.forward`, with the panels and distortions that it asks, and the cells of
// `kernels.hedm.farfield.spots`: operation by operation as there, and compiled without fused multiplication and addition,
// so that the bits are the same. The functions of the C library that have no one rounding (pow, sin, cos, atan2) are asked
// for distortions alone, where they say on which side of a panel's edge a spot lies.

#define PI 3.141592653589793
#define TURN 6.283185307179586
#define LARGEST 1.7976931348623157e308 // for what is infinite on the CPU

// Of a row of `Flat.panels`.
#define CENTRE 0
#define ROW 3
#define COLUMN 6
#define NORMAL 9
#define PIXEL_ROW 12
#define PIXEL_COLUMN 13
#define HALF_ROWS 14
#define HALF_COLUMNS 15
#define KIND 16
#define TABLE 17
#define PANEL 18

#define ETAS 1440 // of `View.seen`

// Kinds of distortion.
#define GE 1
#define DEXELA 2
#define MIDAS 3
#define MAP 4
#define GE_RADIUS_UM 204800.0
#define STEPS 30
#define CLOSE_UM 1e-9

struct Geometry {
  const double *source, *panels, *tables, *ranges;
  int panel_count, range_count;
};

struct Plane {
  double a, b;
};

__device__ double dot(const double *a, double x, double y, double z) { return a[0] * x + a[1] * y + a[2] * z; }

// Python's remainder: never below 0.
__device__ int around(int n, int size) {
  n %= size;
  return n < 0 ? n + size : n;
}

__device__ int whole_below(double value) { return (int)floor(value); }

__device__ double arctangent(double y, double x) {
  double ax = fabs(x), ay = fabs(y);
  double ratio = (ay < ax ? ay : ax) / ((ax < ay ? ay : ax) + 1e-300), s = ratio * ratio;
  double angle =
      ratio *
      (0.99997726 + s * (-0.33262347 + s * (0.19354346 + s * (-0.11643287 + s * (0.05265332 - s * 0.0117212)))));
  if (ay > ax)
    angle = 0.5 * PI - angle;
  if (x < 0)
    angle = PI - angle;
  return y < 0 ? -angle : angle;
}

__device__ bool measured(const Geometry &in, double omega) {
  for (int n = 0; n < in.range_count; n++) {
    double start = in.ranges[2 * n], length = in.ranges[2 * n + 1];
    if (length >= TURN)
      return true;
    double past = fmod(omega - start, TURN);
    if (past < 0)
      past += TURN;
    if (past <= length)
      return true;
  }
  return false;
}

// Of both solutions; `w` is 0 where there is none.
struct Omegas {
  double w, cos0, sin0, cos1, sin1;
};

__device__ Omegas solve(double gx, double gy, double gz, const double *source) {
  double bx = source[0], by = source[1], bz = source[2], wavelength = source[3];
  double along = gx * bx + gy * by, across = gx * by - gy * bx;
  double v = -0.5 * wavelength * (gx * gx + gy * gy + gz * gz) - gz * bz;
  double h2 = along * along + across * across, d = h2 - v * v;
  if (d <= 0)
    return {0, 1, 0, 1, 0};
  double w = sqrt(d), inverse = 1 / h2;
  double av = along * v * inverse, cw = across * w * inverse, cv = across * v * inverse, aw = along * w * inverse;
  return {w, av - cw, cv + aw, av + cw, cv - aw};
}

__device__ double ge_factor(const double *table, double a, double b) {
  double r2 = a * a + b * b;
  if (r2 < 1e-12)
    return 1;
  double q = sqrt(r2) / GE_RADIUS_UM, cos2 = (b * b - a * a) / r2, cos4 = 2 * cos2 * cos2 - 1;
  return 1 + table[0] * pow(q, table[3]) * cos2 + table[1] * pow(q, table[4]) * cos4 + table[2] * pow(q, table[5]);
}

__device__ int tile(double a, double b) {
  if (b >= 0)
    return a <= 0 ? 0 : 6;
  return a <= 0 ? 2 : 4;
}

__device__ Plane midas(const double *table, double a, double b) {
  const double *centre = table + 8, *row = table + 11, *column = table + 14, *normal = table + 17;
  double x = centre[0] + a * row[0] + b * column[0], y = centre[1] + a * row[1] + b * column[1];
  double z = centre[2] + a * row[2] + b * column[2], rho2 = y * y + z * z;
  if (rho2 < 1e-12)
    return {a, b};
  double q = table[7] * sqrt(rho2) / x, t = atan2(z, -y), q2 = q * q;
  double f = 1 + q2 * (table[0] * cos(2 * t + table[6]) + table[2]) +
             q2 * q2 * (table[1] * cos(4 * t + table[3]) + table[5] + q2 * table[4]);
  y *= f;
  z *= f;
  t = dot(normal, centre[0], centre[1], centre[2]) / dot(normal, x, y, z);
  x = t * x - centre[0];
  y = t * y - centre[1];
  z = t * z - centre[2];
  return {dot(row, x, y, z), dot(column, x, y, z)};
}

__device__ double between(const double *nodes, int columns, double fr, double fc) {
  return (1 - fr) * ((1 - fc) * nodes[0] + fc * nodes[1]) + fr * ((1 - fc) * nodes[columns] + fc * nodes[columns + 1]);
}

__device__ Plane mapped(const double *table, double a, double b) {
  int rows = (int)table[0], columns = (int)table[1];
  double step = table[2], r = (a / table[3] + table[5]) / step, c = (b / table[4] + table[6]) / step;
  r = min(max(r, 0.0), rows - 1.0);
  c = min(max(c, 0.0), columns - 1.0);
  int i = min((int)r, rows - 2), j = min((int)c, columns - 2);
  const double *nodes = table + 7 + i * columns + j;
  double fr = r - i, fc = c - j;
  return {a + between(nodes, columns, fr, fc) * table[3],
          b + between(nodes + rows * columns, columns, fr, fc) * table[4]};
}

__device__ Plane undistorted(int kind, const double *table, double a, double b) {
  if (kind == MIDAS)
    return midas(table, a, b);
  if (kind == MAP)
    return mapped(table, a, b);
  double f = ge_factor(table, a, b);
  return {a * f, b * f};
}

__device__ Plane distorted(int kind, const double *table, double a, double b) {
  if (kind == DEXELA) {
    const double *shift = table + tile(a, b);
    return {a + shift[1], b - shift[0]};
  }
  double u = a, v = b;
  for (int n = 0; n < STEPS; n++) {
    Plane made = undistorted(kind, table, u, v);
    double da = a - made.a, db = b - made.b;
    u += da;
    v += db;
    if (fabs(da) + fabs(db) < CLOSE_UM)
      break;
  }
  return {u, v};
}

// Where a ray meets a panel's plane: how far along it, not above 0 where it never does, and the ideal point.
struct Hit {
  double t, a, b;
};

__device__ Hit hit(const double *panel, double px, double py, double pz, double kx, double ky, double kz) {
  double cx = panel[CENTRE] - px, cy = panel[CENTRE + 1] - py, cz = panel[CENTRE + 2] - pz;
  double t = dot(panel + NORMAL, cx, cy, cz) / dot(panel + NORMAL, kx, ky, kz);
  double dx = t * kx - cx, dy = t * ky - cy, dz = t * kz - cz;
  return {t <= LARGEST ? t : 0, dx * panel[ROW] + dy * panel[ROW + 1] + dz * panel[ROW + 2],
          dx * panel[COLUMN] + dy * panel[COLUMN + 1] + dz * panel[COLUMN + 2]};
}

__device__ bool is_on(const Geometry &in, const double *panel, double a, double b) {
  int kind = (int)panel[KIND];
  Plane at = {a, b};
  if (kind)
    at = distorted(kind, in.tables + (int)panel[TABLE], a, b);
  double row = at.a / panel[PIXEL_ROW] + panel[HALF_ROWS], column = at.b / panel[PIXEL_COLUMN] + panel[HALF_COLUMNS];
  return -0.5 <= row && row < 2 * panel[HALF_ROWS] + 0.5 && -0.5 <= column && column < 2 * panel[HALF_COLUMNS] + 0.5;
}

// The panel that the ray meets first, or -1, and the ideal point there.
struct Found {
  int panel;
  double a, b;
};

__device__ Found find(const Geometry &in, double px, double py, double pz, double kx, double ky, double kz) {
  Found found = {-1, 0, 0};
  double nearest = LARGEST;
  for (int i = 0; i < in.panel_count; i++) {
    Hit here = hit(in.panels + i * PANEL, px, py, pz, kx, ky, kz);
    if (!(0 < here.t && here.t < nearest) || !is_on(in, in.panels + i * PANEL, here.a, here.b))
      continue;
    found = {i, here.a, here.b};
    nearest = here.t;
  }
  return found;
}

// Eta of the ray that g makes at this omega.
__device__ double towards(const double *source, double gx, double gy, double gz, double cos, double sin) {
  double hx = cos * gx - sin * gy, hy = sin * gx + cos * gy;
  return arctangent(-dot(source + 4, hx, hy, gz), dot(source + 7, hx, hy, gz));
}

// Whether a spot of a ring would have been measured; `seen` are rows of ETAS, 1 where a ring falls on a panel.
__device__ bool is_seen(const Geometry &in, const unsigned char *seen, int ring, double eta, double omega) {
  int n = around((int)((eta + PI) * (ETAS / (2.0 * PI))), ETAS);
  return seen[ring * ETAS + n] && measured(in, omega);
}
