// Rows of the elementwise operations over vectors of lanes_body.h. Included inside a target region
// after it, in the same anonymous namespace. All are bound by memory or by the exponential.

// The sum of body(i, n) over pieces: four running vectors, added in a fixed order.
template <class Body>
MINKE_INLINE float sum_pieces(Index count, Body body) {
  Vec s0 = all(0), s1 = all(0), s2 = all(0), s3 = all(0);
  Index i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    s0 = s0 + body(i, kLanes);
    s1 = s1 + body(i + kLanes, kLanes);
    s2 = s2 + body(i + 2 * kLanes, kLanes);
    s3 = s3 + body(i + 3 * kLanes, kLanes);
  }
  for (; i + kLanes <= count; i += kLanes) s0 = s0 + body(i, kLanes);
  if (i < count) s1 = s1 + body(i, count - i);
  return sum((s0 + s1) + (s2 + s3));
}

template <class To>
float rmsnorm(const float* x, const float* gain, float eps, To* y, Index n) {
  const float squares = sum_pieces(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        const Vec a = load_at(x + i, m);
        return a * a;
      });
  const float rstd = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
  const Vec r = all(rstd);
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        store_at(y + i, load_at(gain + i, m) * (load_at(x + i, m) * r), m);
      });
  return rstd;
}

void rmsnorm_backward(const float* dy, const float* x, const float* gain, float rstd, float* dx,
                      Index n) {
  const Vec r = all(rstd);
  const float dot = sum_pieces(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        return load_at(gain + i, m) * load_at(dy + i, m) * (load_at(x + i, m) * r);
      });
  const Vec mean = all(-dot / static_cast<float>(n));
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        const Vec xhat = load_at(x + i, m) * r;
        store_at(dx + i, r * fma(xhat, mean, load_at(gain + i, m) * load_at(dy + i, m)), m);
      });
}

void rmsnorm_weight(const RowPair& of, const float* rstd, float* dgain) {
  constexpr Index kPiece = 64;  // rows summed before they meet the total: keeps the sum accurate
  const float *dy = of.dy, *x = of.x;
  const Index dy_stride = of.dy_stride, x_stride = of.x_stride;
  for (Index begin = 0; begin < of.rows; begin += kPiece) {
    const Index end = begin + kPiece < of.rows ? begin + kPiece : of.rows;
    each_piece(
        of.columns, [=](Index i, Index m) __attribute__((always_inline)) {
          Vec s = all(0);
          for (Index t = begin; t < end; ++t)
            s = fma(load_at(dy + t * dy_stride + i, m),
                    load_at(x + t * x_stride + i, m) * all(rstd[t]), s);
          store_at(dgain + i, load_at(dgain + i, m) + s, m);
        });
  }
}

template <class To>
void swiglu(const float* gate, const float* up, To* y, Index n) {
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        const Vec a = load_at(gate + i, m);
        store_at(y + i, a * sigmoid(a) * load_at(up + i, m), m);
      });
}

template <class To>
void swiglu_backward(const float* dy, const float* gate, const float* up, To* dgate, To* dup,
                     Index n) {
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        const Vec d = load_at(dy + i, m), a = load_at(gate + i, m), u = load_at(up + i, m);
        const Vec s = sigmoid(a);
        store_at(dgate + i, d * u * s * fma(a, all(1.0f) - s, all(1.0f)), m);
        store_at(dup + i, d * a * s, m);
      });
}

void sigmoid_row(const float* x, float* y, Index n) {
  each_piece(
      n, [=](Index i, Index m)
             __attribute__((always_inline)) { store_at(y + i, sigmoid(load_at(x + i, m)), m); });
}

float exponentials(const float* z, float* to, float* largest_of_all, Index n) {
  Vec v = all(-kInfinity);
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) v = max(v, load(z + i));
  float top = largest(v);
  for (; i < n; ++i) top = z[i] > top ? z[i] : top;
  *largest_of_all = top;
  const Vec shift = all(-top);
  return sum_pieces(
      n, [=](Index j, Index m) __attribute__((always_inline)) {
        Vec e = exp(load_at(z + j, m) + shift);
        if (to) store_at(to + j, e, m);
        if constexpr (kLanes > 1)
          if (m < kLanes) {  // lanes beyond the row hold e^(0 - top)
            alignas(64) float lanes[kLanes];
            store(lanes, e);
            e = load_some(lanes, m);
          }
        return e;
      });
}

void scale(float factor, float* x, Index n) {
  const Vec f = all(factor);
  each_piece(
      n, [=](Index i, Index m)
             __attribute__((always_inline)) { store_at(x + i, load_at(x + i, m) * f, m); });
}

void turn_pairs(float* x, const float* cos, const float* sin, bool back, Index pairs) {
  Index i = 0;
#if MINKE_LANES > 1
  for (; i + kLanes / 2 <= pairs; i += kLanes / 2) {
    const Vec v = load(x + 2 * i), swapped = swap_pairs(v);
    const Vec c = load_doubled(cos + i), s = load_doubled(sin + i);
    store(x + 2 * i, back ? turn_back(v, c, swapped, s) : turn(v, c, swapped, s));
  }
#endif
  for (; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1], c = cos[i], s = back ? -sin[i] : sin[i];
    x[2 * i] = a * c - b * s;
    x[2 * i + 1] = a * s + b * c;
  }
}

void add_scaled(float w, const float* x, float* y, Index n) {
  const Vec f = all(w);
  each_piece(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        store_at(y + i, fma(f, load_at(x + i, m), load_at(y + i, m)), m);
      });
}

template <class To>
float scale_and_dot(float w, const float* x, const float* other, To* scaled, Index n) {
  const Vec f = all(w);
  return sum_pieces(
      n, [=](Index i, Index m) __attribute__((always_inline)) {
        const Vec a = load_at(x + i, m);
        const Vec product = a * load_at(other + i, m);
        store_at(scaled + i, f * a, m);
        return product;
      });
}

void narrow(const float* x, BF16* y, Index n) {
  each_piece(
      n, [=](Index i, Index m)
             __attribute__((always_inline)) { store_at(y + i, load_at(x + i, m), m); });
}

double sum_of_squares(const float* x, Index n) {
  DoubleSum a = no_sum(), b = no_sum();
  Index i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    add_squares(a, load(x + i));
    add_squares(b, load(x + i + kLanes));
  }
  for (; i < n; i += kLanes) add_squares(a, load_at(x + i, n - i < kLanes ? n - i : kLanes));
  return sum(a) + sum(b);
}

template <class Moment>
MINKE_INLINE void adamw(const AdamWConstants& c, const float* gradient, float* weight, Moment* m,
                        Moment* v, Index n) {
  const Vec beta1 = all(c.beta1), beta2 = all(c.beta2), rest1 = all(c.one_minus_beta1);
  const Vec rest2 = all(c.one_minus_beta2), keep = all(c.keep), step = all(-c.step);
  const Vec v_scale = all(c.v_scale), eps = all(c.eps), clip = all(c.gradient_scale);
  each_piece(
      n, [=](Index i, Index count) __attribute__((always_inline)) {
        const Vec g = load_at(gradient + i, count) * clip;
        const Vec m_new = fma(beta1, load_at(m + i, count), rest1 * g);
        const Vec v_new = fma(beta2, load_at(v + i, count), rest2 * g * g);
        store_at(m + i, m_new, count);
        store_at(v + i, v_new, count);
        const Vec move = m_new / (sqrt(v_new * v_scale) + eps);
        store_at(weight + i, fma(step, move, load_at(weight + i, count) * keep), count);
      });
}

void adamw_f32(const AdamWConstants& c, const float* gradient, float* weight, float* m, float* v,
               Index n) {
  adamw(c, gradient, weight, m, v, n);
}

void adamw_bf16(const AdamWConstants& c, const float* gradient, float* weight, BF16* m, BF16* v,
                Index n) {
  adamw(c, gradient, weight, m, v, n);
}

template <class To>
constexpr OperandKernels<To> kOperands{rmsnorm<To>, swiglu<To>, swiglu_backward<To>,
                                       scale_and_dot<To>};

constexpr ElementwiseKernels kKernels{
    kOperands<float>, kOperands<BF16>, rmsnorm_backward, rmsnorm_weight, sigmoid_row, exponentials,
    scale,            turn_pairs,      add_scaled,       narrow,         sum_of_squares,
    adamw_f32,        adamw_bf16};
