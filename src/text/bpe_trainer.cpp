#include "text/bpe_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <mutex>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "base/error.h"
#include "base/threads.h"
#include "text/byte_level.h"
#include "text/pre_tokenizer.h"
#include "text/utf8.h"

namespace minke {
namespace {

constexpr std::size_t kLongestPart = 256;
constexpr std::int32_t kMostIds = 1 << 24;

struct AddedName {
  const char* content;
  bool special;
};
constexpr AddedName kFirst[] = {
    {"<｜begin▁of▁sentence｜>", true}, {"<｜end▁of▁sentence｜>", true}, {"<｜▁pad▁｜>", true}};
constexpr AddedName kLast[] = {{"<｜fim▁hole｜>", false},
                               {"<｜fim▁begin｜>", false},
                               {"<｜fim▁end｜>", false},
                               {"<｜User｜>", false},
                               {"<｜Assistant｜>", false},
                               {"<|EOT|>", true},
                               {"<｜tool▁calls▁begin｜>", false},
                               {"<｜tool▁calls▁end｜>", false},
                               {"<｜tool▁call▁begin｜>", false},
                               {"<｜tool▁call▁end｜>", false},
                               {"<｜tool▁outputs▁begin｜>", false},
                               {"<｜tool▁outputs▁end｜>", false},
                               {"<｜tool▁output▁begin｜>", false},
                               {"<｜tool▁output▁end｜>", false},
                               {"<｜tool▁sep｜>", false},
                               {"<think>", false},
                               {"</think>", false}};

using Counts = std::unordered_map<std::string_view, std::int64_t>;

void count_piece(std::string_view piece, Counts& counts) {
  while (piece.size() > kLongestPart) {
    std::size_t cut = kLongestPart;
    while ((static_cast<unsigned char>(piece[cut]) & 0xC0) == 0x80) --cut;
    ++counts[piece.substr(0, cut)];
    piece.remove_prefix(cut);
  }
  ++counts[piece];
}

// Sums do not depend on who counted what; the order is that of the bytes.
std::vector<std::pair<std::string_view, std::int64_t>> count_pieces(
    std::span<const std::string_view> texts) {
  const PreTokenizer pre_tokenizer = PreTokenizer::published();
  Counts total;
  std::mutex mutex;
  const auto n = static_cast<Index>(texts.size());
  parallel_ranges(n, std::max<Index>(1, n / (8 * n_threads())), [&](Index begin, Index end) {
    Counts counts;
    for (Index i = begin; i < end; ++i) {
      require_utf8(texts[i], fmt::format("text {}", i));
      pre_tokenizer.split(texts[i], [&](std::string_view piece) { count_piece(piece, counts); });
    }
    std::lock_guard lock(mutex);
    for (const auto& [piece, count] : counts) total[piece] += count;
  });
  std::vector<std::pair<std::string_view, std::int64_t>> sorted(total.begin(), total.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

// Joins pairs in all pieces at once and keeps the pairs' counts true.
class Trainer {
 public:
  Trainer(const std::vector<std::pair<std::string_view, std::int64_t>>& pieces,
          TrainedTokenizer& out)
      : out_(out) {
    std::array<std::int32_t, 256> byte_ids;
    for (unsigned byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      byte_ids[byte] = piece_id(to_stand_ins({&c, 1}));
    }
    for (const auto& [bytes, count] : pieces) {
      Piece piece{{}, count};
      for (const char c : bytes) piece.ids.push_back(byte_ids[static_cast<unsigned char>(c)]);
      pieces_.push_back(std::move(piece));
    }
    for (std::size_t p = 0; p < pieces_.size(); ++p)
      for (std::size_t i = 0; i + 1 < pieces_[p].ids.size(); ++i)
        change({pieces_[p].ids[i], pieces_[p].ids[i + 1]}, pieces_[p].count, p);
    announce_grown();
  }

  // Joins the most frequent pair; false when none is left that stands min_count times.
  bool join_one(std::int64_t min_count, const std::unordered_set<std::string>& reserved) {
    while (!heap_.empty()) {
      const Candidate best = heap_.top();
      heap_.pop();
      const auto info = pairs_.find(best.pair.key());
      // A candidate whose count fell is announced again; one whose count grew has been.
      const std::int64_t count = info == pairs_.end() ? 0 : info->second.count;
      if (count < best.count) {
        if (count >= min_count) heap_.push({count, best.pair});
        continue;
      }
      if (count > best.count) continue;
      if (count < min_count) return false;
      std::string joined = out_.vocab[best.pair.left] + out_.vocab[best.pair.right];
      if (reserved.contains(joined)) continue;  // text that spells an added token
      const std::int32_t id = piece_id(std::move(joined));
      out_.merges.push_back({best.pair.left, best.pair.right, id});
      const std::vector<std::uint32_t> where = std::move(info->second.pieces);
      for (const std::uint32_t p : where) join_in(p, best.pair, id);
      pairs_.erase(best.pair.key());
      announce_grown();
      return true;
    }
    return false;
  }

 private:
  struct Pair {
    std::int32_t left, right;
    std::uint64_t key() const {
      return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
    }
    bool operator==(const Pair&) const = default;
  };
  struct Candidate {
    std::int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {  // the top of the heap is the largest
      return count != other.count ? count < other.count : pair.key() > other.pair.key();
    }
  };
  struct PairInfo {
    std::int64_t count = 0;
    std::vector<std::uint32_t> pieces;  // that hold it, or did
  };
  struct Piece {
    std::vector<std::int32_t> ids;
    std::int64_t count;
  };

  // Different pairs may spell the same piece; it has one id.
  std::int32_t piece_id(std::string content) {
    const auto [entry, is_new] =
        ids_.try_emplace(content, static_cast<std::int32_t>(out_.vocab.size()));
    if (is_new) out_.vocab.push_back(std::move(content));
    return entry->second;
  }

  void change(Pair pair, std::int64_t by, std::size_t piece) {
    PairInfo& info = pairs_[pair.key()];
    info.count += by;
    if (by < 0) return;
    const auto p = static_cast<std::uint32_t>(piece);
    if (info.pieces.empty() || info.pieces.back() != p) info.pieces.push_back(p);
    if (grown_keys_.insert(pair.key()).second) grown_.push_back(pair);
  }

  void announce_grown() {
    for (const Pair pair : grown_)
      if (const auto info = pairs_.find(pair.key()); info != pairs_.end() && info->second.count > 0)
        heap_.push({info->second.count, pair});
    grown_.clear();
    grown_keys_.clear();
  }

  void join_in(std::uint32_t p, Pair pair, std::int32_t id) {
    std::vector<std::int32_t>& ids = pieces_[p].ids;
    const std::int64_t count = pieces_[p].count;
    std::size_t n = 0;  // ids already rewritten
    for (std::size_t i = 0; i < ids.size();) {
      if (i + 1 == ids.size() || Pair{ids[i], ids[i + 1]} != pair) {
        ids[n++] = ids[i++];
        continue;
      }
      if (n > 0) {
        change({ids[n - 1], pair.left}, -count, p);
        change({ids[n - 1], id}, count, p);
      }
      if (i + 2 < ids.size()) {
        change({pair.right, ids[i + 2]}, -count, p);
        change({id, ids[i + 2]}, count, p);
      }
      ids[n++] = id;
      i += 2;
    }
    ids.resize(n);
  }

  TrainedTokenizer& out_;
  std::unordered_map<std::string, std::int32_t> ids_;
  std::vector<Piece> pieces_;
  std::unordered_map<std::uint64_t, PairInfo> pairs_;
  std::priority_queue<Candidate> heap_;
  std::vector<Pair> grown_;  // pairs whose count rose since the last announcement
  std::unordered_set<std::uint64_t> grown_keys_;
};

}  // namespace

std::int32_t least_vocab_size() {
  return static_cast<std::int32_t>(std::size(kFirst) + 256 + std::size(kLast));
}

TrainedTokenizer train_bpe(std::span<const std::string_view> texts,
                           const BpeTrainOptions& options) {
  if (options.vocab_size < least_vocab_size() || options.vocab_size > kMostIds)
    throw ConfigError(
        fmt::format("vocab: {} is out of range; expected {} (the bytes and the added tokens) to {}",
                    options.vocab_size, least_vocab_size(), kMostIds));
  if (options.min_count < 1)
    throw ConfigError(
        fmt::format("min_count: {} is out of range; expected at least 1", options.min_count));
  TrainedTokenizer out;
  std::unordered_set<std::string> reserved;
  const auto add = [&](const AddedName& name, std::int32_t id) {
    out.added_tokens.push_back({id, name.content, name.special, !name.special});
    reserved.insert(name.content);
  };
  for (const AddedName& name : kFirst) {
    add(name, static_cast<std::int32_t>(out.vocab.size()));
    out.vocab.push_back(name.content);
  }
  for (const AddedName& name : kLast) reserved.insert(name.content);
  Trainer trainer(count_pieces(texts), out);
  const std::size_t most = options.vocab_size - std::size(kLast);
  while (out.vocab.size() < most && trainer.join_one(options.min_count, reserved)) {
  }
  for (std::size_t i = 0; i < std::size(kLast); ++i)
    add(kLast[i], static_cast<std::int32_t>(out.vocab.size() + i));
  return out;
}

}  // namespace minke
