#include "parallel/spread_layers.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "tensor/reserved_memory.h"

namespace minke {

namespace {
enum What : std::int32_t { kLoad, kPass, kCopy, kEnd };
}
struct LayerCaller::Call {
  std::int32_t what = kEnd;
  PageNumber n_pages = 0;       // kPass: those in use have lower numbers
  PageNumber from = 0, to = 0;  // kCopy
  std::int64_t n_segments = 0;  // kPass
  std::int64_t n_rows = 0;      // T
  std::int64_t n_integers = 0;  // of the segments
};

namespace {

constexpr int kCallTag = 0, kLoadedTag = 1, kSegmentTag = 2, kRowTag = 3;

std::span<std::byte> bytes_of(Tensor& rows) {
  return {static_cast<std::byte*>(rows.raw()), rows.bytes()};
}

// A segment as integers: tokens, rows before them, form, the numbers of its pages.
void pack(const Segment& segment, std::vector<std::int32_t>& to) {
  const Index before = segment.cache->length(0);
  const Index n_pages = (before + segment.n_tokens + kKeyTile - 1) / kKeyTile;
  const std::span<const PageNumber> pages = segment.cache->page_numbers();
  MINKE_ASSERT(n_pages <= std::ssize(pages));
  for (const Index n : {segment.n_tokens, before, static_cast<Index>(segment.form)})
    to.push_back(static_cast<std::int32_t>(n));
  to.insert(to.end(), pages.begin(), pages.begin() + n_pages);
}

// A pass on one rank: its stages in their order, the same walk on all of them. x is what the caller
// embedded; what it gets back is behind the last layer.
Tensor run_stages(Communicator& ranks, const LayerPlacement& placement, const Model& model,
                  std::span<const Segment> segments, Tensor x, Index n_rows) {
  const int own = ranks.rank();
  const auto send = [&](int to) {
    if (to == own) return;
    Request sent = ranks.send(bytes_of(x), to, kRowTag);
    wait(sent);
  };
  if (own == placement.caller()) send(placement.ranks.front());
  int before = placement.caller();
  for (std::size_t s = 0; s < placement.stages.size(); before = placement.ranks[s++]) {
    if (placement.ranks[s] != own) continue;
    if (before != own) {
      x = Tensor::uninitialized({n_rows, model.config.hidden_size});
      Request arrived = ranks.receive(bytes_of(x), before, kRowTag);
      wait(arrived);
    }
    cached_layers(model, placement.stages[s].first, placement.stages[s].last, segments, x);
    if (s + 1 < placement.stages.size()) send(placement.ranks[s + 1]);
  }
  return x;
}

}  // namespace

// ---- the caller

LayerCaller::LayerCaller(Communicator& ranks, std::chrono::milliseconds bound)
    : ranks_(ranks.split(0, ranks.rank())), bound_(bound) {}

void LayerCaller::call(const Call& call, std::span<const std::int32_t> segments) {
  std::vector<Request> sent;
  for (int r = 0; r < ranks_->size(); ++r) {
    if (r == ranks_->rank()) continue;
    sent.push_back(ranks_->send(std::as_bytes(std::span(&call, 1)), r, kCallTag));
    if (!segments.empty()) sent.push_back(ranks_->send(std::as_bytes(segments), r, kSegmentTag));
  }
  wait_all(sent);
}

void LayerCaller::call_to_load(LayerPlacement placement) {
  MINKE_ASSERT(placement.caller() == ranks_->rank());
  placement_ = std::move(placement);
  call({.what = kLoad});
  for (int r = 0; r < ranks_->size(); ++r)
    if (r != ranks_->rank()) loaded_.push_back(ranks_->receive({}, r, kLoadedTag));
}

void LayerCaller::wait_until_loaded(const std::function<bool()>& cancelled) {
  for (Request& loaded : loaded_)
    while (!loaded->test()) {
      if (cancelled && cancelled()) throw Interrupted("");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  ranks_->set_timeout(bound_);
}

void LayerCaller::end() {
  ranks_->set_timeout(std::chrono::milliseconds(0));  // the others may be reading a tensor
  call({});
  wait_all(loaded_);
  ranks_->set_timeout(bound_);
}

// The others wait for each other's rows, so that an error on the way ends the job.
Tensor LayerCaller::pass(const Model& model, std::span<const Segment> segments, Tensor x) {
  const Index n_rows = x.extent(0);
  ranks_->set_progress(++n_passes_, "layers");
  try {
    std::vector<std::int32_t> integers;
    for (const Segment& segment : segments) pack(segment, integers);
    call({.what = kPass,
          .n_pages = next_page_,
          .n_segments = std::ssize(segments),
          .n_rows = n_rows,
          .n_integers = std::ssize(integers)},
         integers);
    x = run_stages(*ranks_, placement_, model, segments, std::move(x), n_rows);
  } catch (const std::exception& error) {
    ranks_->abort(error.what());
    throw;
  }
  for (std::size_t s = 0; s < placement_.stages.size(); ++s)
    if (placement_.ranks[s] != ranks_->rank())
      for (Index layer = placement_.stages[s].first; layer < placement_.stages[s].last; ++layer)
        for (const Segment& segment : segments) segment.cache->count_rows(layer, segment.n_tokens);
  return x;
}

PageNumber LayerCaller::take_pages(Index n) {
  if (n == 1 && !free_pages_.empty()) {
    const PageNumber page = free_pages_.back();
    free_pages_.pop_back();
    return page;
  }
  const PageNumber first = next_page_;
  next_page_ += static_cast<PageNumber>(n);
  return first;
}

// Whatever took the last numbers mostly gives them back first: from there on the memory behind them
// is free as well, which the others hear with the next pass.
void LayerCaller::give_back(std::span<const PageNumber> pages) {
  const auto n = static_cast<PageNumber>(pages.size());
  const bool at_end = n > 0 && pages.back() == next_page_ - 1 &&
                      pages.back() - pages.front() == n - 1 &&
                      std::is_sorted(pages.begin(), pages.end());
  if (at_end)
    next_page_ = pages.front();
  else
    free_pages_.insert(free_pages_.end(), pages.begin(), pages.end());
}

void LayerCaller::copy_page(PageNumber from, PageNumber to) {
  call({.what = kCopy, .from = from, .to = to});
}

// ---- the others

namespace {

// The rows that a rank keeps of its layers, by the numbers of pages. Memory is used where it is
// first written, as far up as numbers go.
class KeptRows {
 public:
  KeptRows(const Model& model, const LayerPlacement& placement, int rank)
      : row_(latent_row(model.config, cache_dtype(model))),
        slots_(static_cast<std::size_t>(model.config.num_hidden_layers), -1) {
    for (std::size_t s = 0; s < placement.stages.size(); ++s)
      if (placement.ranks[s] == rank)
        for (Index layer = placement.stages[s].first; layer < placement.stages[s].last; ++layer)
          slots_[static_cast<std::size_t>(layer)] = n_slots_++;
  }

  const LatentRow& row() const { return row_; }
  Index slot(Index layer) const { return slots_[static_cast<std::size_t>(layer)]; }
  Index n_slots() const { return n_slots_; }

  std::byte* rows(PageNumber page, Index slot) {
    const auto piece = static_cast<std::size_t>(page / kPiecePages);
    while (pieces_.size() <= piece)  // addresses
      pieces_.emplace_back(kPiecePages * page_bytes(), "the latent cache of a rank's layers");
    return pieces_[piece].data() + static_cast<std::size_t>(page % kPiecePages) * page_bytes() +
           static_cast<std::size_t>(slot) * layer_bytes();
  }
  // Gives up what is behind page n.
  void keep(PageNumber n) {
    const auto n_pieces = static_cast<std::size_t>((n + kPiecePages - 1) / kPiecePages);
    if (n_pieces < pieces_.size()) pieces_.resize(n_pieces);
  }
  void copy(PageNumber from, PageNumber to) {
    if (n_slots_ > 0) std::copy_n(rows(from, 0), page_bytes(), rows(to, 0));
  }

 private:
  static constexpr PageNumber kPiecePages = 1024;  // of addresses
  std::size_t layer_bytes() const { return static_cast<std::size_t>(kKeyTile) * row_.bytes(); }
  std::size_t page_bytes() const {
    return static_cast<std::size_t>(std::max<Index>(1, n_slots_)) * layer_bytes();
  }

  LatentRow row_;
  std::vector<Index> slots_;  // of the layers, -1 of those elsewhere
  Index n_slots_ = 0;
  std::vector<ReservedMemory> pieces_;
};

// The rows of a sequence that are kept here, as the caller named its pages for one pass.
class CalledCache final : public LatentCache {
 public:
  CalledCache(KeptRows& kept, Index before, std::span<const PageNumber> pages)
      : kept_(kept), numbers_(pages), pages_(static_cast<std::size_t>(kept.n_slots())) {
    lengths_.assign(pages_.size(), before);
    for (std::size_t slot = 0; slot < pages_.size(); ++slot)
      for (const PageNumber page : pages)
        pages_[slot].push_back(kept.rows(page, static_cast<Index>(slot)));
  }

  const LatentRow& row() const override { return kept_.row(); }
  Index length(Index layer) const override { return lengths_[slot(layer)]; }
  void append(Index layer, View2<const float> rows) override {
    Index& length = lengths_[slot(layer)];
    length = append_rows(row(), length, rows, [&](Index page) {
      return kept_.rows(numbers_[static_cast<std::size_t>(page)], kept_.slot(layer));
    });
  }
  std::span<const void* const> pages(Index layer) const override { return pages_[slot(layer)]; }
  // The caller's cache does these.
  void reserve(Index) override {}
  void truncate(Index) override {}
  void count_rows(Index, Index) override {}
  std::span<const PageNumber> page_numbers() const override { return {}; }

 private:
  std::size_t slot(Index layer) const { return static_cast<std::size_t>(kept_.slot(layer)); }

  KeptRows& kept_;
  std::span<const PageNumber> numbers_;
  std::vector<std::vector<const void*>> pages_;  // of the layers here
  std::vector<Index> lengths_;
};

}  // namespace

class LayerHolder {
 public:
  using Call = LayerCaller::Call;

  LayerHolder(Communicator& ranks, int caller, std::chrono::milliseconds bound)
      : ranks_(ranks.split(0, ranks.rank())), caller_(caller), bound_(bound) {
    expect();
  }

  void run(FunctionRef<std::optional<HeldLayers>(FunctionRef<bool()>)> load) {
    if (next().what == kEnd) return;
    const auto ended = [&] { return arriving_->test() && call_.what == kEnd; };
    const std::optional<HeldLayers> held = load(ended);
    Request loaded = ranks_->send({}, caller_, kLoadedTag);
    wait(loaded);
    ranks_->set_timeout(bound_);
    std::optional<KeptRows> kept;
    for (Call call = next(); call.what != kEnd; call = next()) {
      MINKE_ASSERT(held);
      if (!kept) kept.emplace(*held->model, held->placement, ranks_->rank());
      if (call.what == kCopy)
        kept->copy(call.from, call.to);
      else
        answer(call, *held, *kept);
    }
  }

 private:
  // The next call, which may come at any time.
  Call next() {
    ranks_->set_progress(n_, "waiting for work");
    arriving_->wait_idle();
    const Call call = call_;
    if (call.what == kPass) ranks_->set_progress(++n_, "layers");
    if (call.what != kEnd) expect();
    return call;
  }
  void expect() {
    arriving_ = ranks_->receive(std::as_writable_bytes(std::span(&call_, 1)), caller_, kCallTag);
  }

  void answer(const Call& call, const HeldLayers& held, KeptRows& kept) {
    kept.keep(call.n_pages);
    std::vector<std::int32_t> integers(static_cast<std::size_t>(call.n_integers));
    Request arrived =
        ranks_->receive(std::as_writable_bytes(std::span(integers)), caller_, kSegmentTag);
    wait(arrived);
    std::vector<CalledCache> caches;
    std::vector<Segment> segments;
    caches.reserve(static_cast<std::size_t>(call.n_segments));
    for (std::span<const std::int32_t> left = integers; !left.empty();) {
      const Index n_tokens = left[0], before = left[1];
      const auto form = static_cast<AttentionForm>(left[2]);
      const auto n_pages = static_cast<std::size_t>((before + n_tokens + kKeyTile - 1) / kKeyTile);
      caches.emplace_back(kept, before, left.subspan(3, n_pages));
      segments.push_back({&caches.back(), n_tokens, form});
      left = left.subspan(3 + n_pages);
    }
    run_stages(*ranks_, held.placement, *held.model, segments, {}, call.n_rows);
  }

  std::unique_ptr<Communicator> ranks_;
  const int caller_;
  const std::chrono::milliseconds bound_;
  Call call_;
  Request arriving_;
  std::int64_t n_ = 0;
};

void hold_layers(Communicator& ranks, int caller, std::chrono::milliseconds bound,
                 FunctionRef<std::optional<HeldLayers>(FunctionRef<bool()>)> load) {
  LayerHolder(ranks, caller, bound).run(load);
}

}  // namespace minke
