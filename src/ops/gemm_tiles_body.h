// Products on a unit of tiles (ops/tile_product.h). Those of up to 16 rows are bound by reading
// weights: up to four panels of 16 outputs are read side by side, each a long stream of which later
// lines are fetched. Codes in E4M3 are widened into cache by the first rows, those of the next step
// of k while the unit multiplies; more rows find them there.
//
// Included in an anonymous namespace, inside a target region where Table needs one. A Table has
//   set(scale)                    BF16(value of a code * scale) from now on
//   widen(codes, k, to, ahead)    k of one panel, a multiple of 4, to pairs; fetches, too, what
//                                 lies that many bytes ahead
//
// No `#pragma once`: each form has its own copy.

constexpr Index kFetchAhead = 2048;

// Bytes from what is read at step of k to what should be fetched: towards the end of `panels`
// panels those that are read next.
inline Index fetch_ahead(const Block& b, Index panels, Index step, Index step_bytes) {
  const Index end = b.k / kStep * step_bytes;
  return step * step_bytes + kFetchAhead < end ? kFetchAhead
                                               : kFetchAhead + panels * b.panel_bytes - end;
}

// Weights of a step of k as tiles: BF16 where they lie.
template <int kPanels>
class PairTiles {
 public:
  explicit PairTiles(const Block& b) : b_(b) {}
  void prepare(Index step) {
    const Index ahead = fetch_ahead(b_, kPanels, step, kStepBytes);
    for (int p = 0; p < kPanels; ++p)
#pragma GCC unroll 16
      for (Index line = 0; line < kStepBytes; line += 64)
        __builtin_prefetch(tile(p, step) + line + ahead, 0, 2);
  }
  const char* tile(Index panel, Index step) const {
    return static_cast<const char*>(b_.w) + panel * b_.panel_bytes + step * kStepBytes;
  }

 private:
  static constexpr Index kStepBytes = kTilePairs * kTileBytes;
  const Block& b_;
};

// Codes, widened.
template <class Table, int kPanels>
class CodeTiles {
 public:
  explicit CodeTiles(const Block& b) : b_(b) {}
  void prepare(Index step) {
    if (step * kStep % kScale == 0) table_.set(b_.scales[step * kStep / kScale]);
    const Index ahead = fetch_ahead(b_, kPanels, step, kCodes);
    for (Index p = 0; p < kPanels; ++p)
      table_.widen(static_cast<const std::uint8_t*>(b_.w) + p * b_.panel_bytes + step * kCodes,
                   kStep, widened_[step % 2][p], ahead);
  }
  const std::uint16_t* tile(Index panel, Index step) const { return widened_[step % 2][panel]; }

 private:
  static constexpr Index kCodes = kStep * kPanel;  // of a panel in a step
  const Block& b_;
  Table table_;
  alignas(64) std::uint16_t widened_[2][kPanels][kCodes];
};

template <class Tiles, class Weights, int kPanels>
class FewRowsProduct {
 public:
  explicit FewRowsProduct(const Block& b) : b_(b), weights_(b) {}

  void multiply() {
    tiles_.configure(tile_shapes_of_few_rows(b_.rows));
    begin<0>(), begin<1>(), begin<2>(), begin<3>();
    const Index steps = b_.k / kStep;
    const char* x = static_cast<const char*>(b_.x);
    weights_.prepare(0);
    for (Index step = 0; step < steps; ++step, x += kTileBytes) {
      if (step + 1 < steps) weights_.prepare(step + 1);
      tiles_.template load<4>(x, b_.x_stride * 4);
      multiply_panel<0, 5>(step), multiply_panel<1, 6>(step);
      multiply_panel<2, 5>(step), multiply_panel<3, 6>(step);
    }
    end<0>(), end<1>(), end<2>(), end<3>();
    tiles_.release();
  }

 private:
  template <int kSums, int kW>
  void multiply_panel(Index step) {
    if constexpr (kSums < kPanels) {
      tiles_.template load<kW>(weights_.tile(kSums, step), kTileBytes);
      tiles_.template multiply_add<kSums, 4, kW>();
    }
  }
  template <int kSums>
  void begin() {
    if constexpr (kSums < kPanels)
      begin_sums<kSums>(tiles_, sums(kSums), b_.y_stride, b_.rows, width(kSums), b_.add);
  }
  template <int kSums>
  void end() {
    if constexpr (kSums < kPanels)
      end_sums<kSums>(tiles_, sums(kSums), b_.y_stride, b_.rows, width(kSums));
  }
  float* sums(Index panel) const { return b_.y + panel * kPanel; }
  Index width(Index panel) const { return std::min(kPanel, b_.columns - panel * kPanel); }

  const Block& b_;
  Weights weights_;
  Tiles tiles_;
};

// Codes for any number of rows: all panels of a block, widened.
template <class Table>
class WidenedPanels {
 public:
  explicit WidenedPanels(const Block& b) : b_(b) {
    MINKE_ASSERT(b.k <= kDeepE4m3 && b.columns <= kGroup * kPanel);
    for (Index i = 0; i * kScale < b.k; ++i) tables_[i].set(b.scales[i]);
  }
  void prepare(Index panel, Index panels, Index step) {
    const Table& table = tables_[step * kStep / kScale];
    for (Index p = panel; p < panel + panels; ++p)
      table.widen(static_cast<const std::uint8_t*>(b_.w) + p * b_.panel_bytes + step * kCodes,
                  kStep, widened_[p] + step * kCodes, kFetchAhead);
  }
  const std::uint16_t* panels() const { return widened_[0]; }
  static constexpr Index panel_bytes() { return sizeof widened_[0]; }

 private:
  static constexpr Index kCodes = kStep * kPanel;
  const Block& b_;
  Table tables_[kDeepE4m3 / kScale];
  alignas(64) std::uint16_t widened_[kGroup][kDeepE4m3 * kPanel];
};

template <class Tiles, class Table>
void multiply_many_codes_by_tiles(const Block& b) {
  WidenedPanels<Table> weights(b);
  const auto prepare = [&](Index panel, Index panels, Index step) {
    weights.prepare(panel, panels, step);
  };
  NextLines next = b.next;
  const TileProduct p = product_of(b, weights.panels(), weights.panel_bytes(), next);
  TileMultiplier<Tiles, decltype(prepare)>(p, prepare).multiply();
}

template <class Tiles, class Table>
void multiply_codes_by_tiles(const Block& b) {
  if (b.rows > kTileRows) return multiply_many_codes_by_tiles<Tiles, Table>(b);
  switch ((b.columns + kPanel - 1) / kPanel) {
    case 1:
      return FewRowsProduct<Tiles, CodeTiles<Table, 1>, 1>(b).multiply();
    case 2:
      return FewRowsProduct<Tiles, CodeTiles<Table, 2>, 2>(b).multiply();
    case 3:
      return FewRowsProduct<Tiles, CodeTiles<Table, 3>, 3>(b).multiply();
    default:
      return FewRowsProduct<Tiles, CodeTiles<Table, 4>, 4>(b).multiply();
  }
}

// BF16, any number of rows.
template <class Tiles>
void multiply_pairs_by_tiles(const Block& b) {
  if (b.rows > kTileRows) return multiply_by_tiles<Tiles>(b);
  switch ((b.columns + kPanel - 1) / kPanel) {
    case 1:
      return FewRowsProduct<Tiles, PairTiles<1>, 1>(b).multiply();
    case 2:
      return FewRowsProduct<Tiles, PairTiles<2>, 2>(b).multiply();
    case 3:
      return FewRowsProduct<Tiles, PairTiles<3>, 3>(b).multiply();
    default:
      return FewRowsProduct<Tiles, PairTiles<4>, 4>(b).multiply();
  }
}
