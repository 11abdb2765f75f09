// The products of `minke bench gemm` by oneDNN, for onednn_compare.py: BF16 x BF16 -> FP32, weights
// packed before as oneDNN likes them best. Not part of the build. Debian: apt install libdnnl-dev,
//
//     g++ -std=c++17 -O2 tools/onednn_gemm.cpp -o onednn_gemm -ldnnl
//
// Versions 2 and 3 both do; -I and -L for one that is elsewhere. It runs on OMP_NUM_THREADS
// threads, by default on every core that it may use, and prints JSON: seconds of one call, the
// median of --rounds N (9).
#include <dnnl.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

using dnnl::memory;
using Type = memory::data_type;
using Layout = memory::format_tag;

struct Extents {
  long T, N, K;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Contents matter: a unit that multiplies zeros needs less power.
void fill(const memory& m, long n) {
  auto* to = static_cast<std::uint16_t*>(m.get_data_handle());
  std::uint32_t state = 1;
  for (long i = 0; i < n; ++i) {
    float sum = 0;
    for (int j = 0; j < 4; ++j) {
      state = state * 1664525u + 1013904223u;
      sum += static_cast<float>(static_cast<std::int32_t>(state)) * 0x1p-31f;
    }
    std::uint32_t bits;
    std::memcpy(&bits, &sum, 4);
    to[i] = static_cast<std::uint16_t>(bits >> 16);
  }
}

class Product {
 public:
  Product(const dnnl::engine& engine, Extents e) : engine_(engine), stream_(engine), e_(e) {
    const memory::desc x({e.T, e.K}, Type::bf16, Layout::ab);
    const memory::desc w({e.K, e.N}, Type::bf16, Layout::any);
    const memory::desc y({e.T, e.N}, Type::f32, Layout::ab);
#if DNNL_VERSION_MAJOR >= 3
    description_ = dnnl::matmul::primitive_desc(engine, x, w, y);
#else
    description_ = dnnl::matmul::primitive_desc({x, w, y}, engine);
#endif
    product_ = dnnl::matmul(description_);
    x_ = memory(x, engine), y_ = memory(y, engine);
    fill(x_, e.T * e.K);
  }

  memory weights() {
    memory plain({{e_.K, e_.N}, Type::bf16, Layout::ba}, engine_);
    fill(plain, e_.K * e_.N);
    memory packed(description_.weights_desc(), engine_);
    dnnl::reorder(plain, packed).execute(stream_, plain, packed);
    stream_.wait();
    return packed;
  }

  void multiply(const memory& w) {
    product_.execute(stream_, {{DNNL_ARG_SRC, x_}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, y_}});
    stream_.wait();
  }

  std::string implementation() const {
    return description_.impl_info_str();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  Extents e_;
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul product_;
  memory x_, y_;
};

// Each round calls until 20 ms have passed, over all copies of the weights in turn.
double median_seconds(Product& product, const std::vector<memory>& copies, int rounds) {
  for (const memory& w : copies) product.multiply(w);
  std::vector<double> seconds;
  for (int i = 0; i < rounds; ++i) {
    const double begin = now();
    long calls = 0;
    do {
      for (const memory& w : copies) product.multiply(w);
      calls += static_cast<long>(copies.size());
    } while (now() - begin < 0.02);
    seconds.push_back((now() - begin) / static_cast<double>(calls));
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc == 3 && std::string(argv[1]) == "--rounds" ? std::atoi(argv[2]) : 9;
  if (argc != 1 && (argc != 3 || rounds < 1)) {
    std::fprintf(stderr, "usage: onednn_gemm [--rounds N]\n");
    return 2;
  }
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  const Extents large[] = {{512, 2048, 2048},
                           {4096, 1408, 2048},
                           {4096, 2048, 1408},
                           {64, 2048, 2048},
                           {2048, 512, 512}};
  const Extents few[] = {{1, 2048, 7168}, {8, 2048, 7168}, {1, 7168, 2048}, {8, 7168, 2048}};
  const dnnl_version_t* v = dnnl_version();
  std::printf("{\"version\": \"%d.%d.%d\",\n \"results\": [", v->major, v->minor, v->patch);
  const char* before = "\n  ";
  const auto measure = [&](const char* name, Extents e, long bytes) {
    Product product(engine, e);
    std::vector<memory> copies;
    for (long done = 0; done <= bytes; done += 2 * e.N * e.K) copies.push_back(product.weights());
    const double seconds = median_seconds(product, copies, rounds);
    std::printf(
        "%s{\"name\": \"%s\", \"shape\": \"%ld x %ld x %ld\", \"seconds\": %.9f, "
        "\"implementation\": \"%s\"}",
        before, name, e.T, e.N, e.K, seconds, product.implementation().c_str());
    before = ",\n  ";
  };
  for (const Extents& e : large) measure("linear", e, 0);
  for (const Extents& e : few) measure("linear from memory", e, 256L << 20);
  std::printf("]}\n");
}
