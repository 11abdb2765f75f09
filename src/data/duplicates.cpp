#include "data/duplicates.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "data/held_out.h"

namespace minke {
namespace {

using Number = std::uint32_t;  // of a document

// Documents that belong together. The representative of a group is the one that is kept of it.
class Groups {
 public:
  Groups(std::size_t n, const std::vector<Outcome>& outcomes) : parent_(n), outcomes_(outcomes) {
    std::iota(parent_.begin(), parent_.end(), Number{0});
  }
  Number representative(Number i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  void join(Number a, Number b) {
    a = representative(a), b = representative(b);
    if (comes_before(b, a)) std::swap(a, b);
    parent_[b] = a;
  }

 private:
  bool comes_before(Number a, Number b) const {
    const bool a_held = outcomes_[a] == Outcome::HeldOut, b_held = outcomes_[b] == Outcome::HeldOut;
    return a_held != b_held ? a_held : a < b;
  }

  std::vector<Number> parent_;
  const std::vector<Outcome>& outcomes_;
};

struct KeyedDocument {
  std::uint64_t key;
  Number document;
  bool operator<(const KeyedDocument& other) const {
    return key != other.key ? key < other.key : document < other.document;
  }
};

class Decision {
 public:
  Decision(std::span<const DocumentRecord> records, const DuplicateOptions& options)
      : records_(records), options_(options), outcomes_(records.size()) {
    std::transform(records.begin(), records.end(), outcomes_.begin(),
                   [](const DocumentRecord& record) { return record.outcome; });
  }

  std::vector<Outcome> run() {
    hold_out();
    Groups groups(records_.size(), outcomes_);
    if (options_.exact) leave_out_copies(groups);
    if (options_.near > 0) leave_out_near(groups);
    return std::move(outcomes_);
  }

 private:
  void hold_out() {
    if (options_.held_out_fraction == 0) return;
    std::vector<HeldOutRule> rules;
    for (const DocumentRecord& record : records_) {
      if (record.outcome != Outcome::Train) continue;
      if (record.source >= rules.size()) rules.resize(record.source + 1);
      rules[record.source].add(record.hash);
    }
    std::vector<std::uint64_t> limits;
    for (const HeldOutRule& rule : rules) limits.push_back(rule.limit(options_.held_out_fraction));
    for (std::size_t i = 0; i < records_.size(); ++i) {
      const DocumentRecord& record = records_[i];
      if (record.outcome != Outcome::Train) continue;
      const std::uint64_t limit = limits[record.source];
      if (rules[record.source].documents() == 1 && record.text_bytes >= kSmallestDocumentToCut &&
          !record.is_dialogue)
        outcomes_[i] = Outcome::Cut;
      else if (limit > 0 && record.hash <= limit)
        outcomes_[i] = Outcome::HeldOut;
    }
  }

  // Calls take(bucket) for each set of two or more kept documents with the same key, in the order
  // of the input within a set.
  template <class Key, class Take>
  void each_bucket(Key key, Take take) {
    std::vector<KeyedDocument> keyed;
    keyed.reserve(records_.size());
    for (std::size_t i = 0; i < records_.size(); ++i)
      if (is_kept(outcomes_[i])) keyed.push_back({key(records_[i]), static_cast<Number>(i)});
    std::sort(keyed.begin(), keyed.end());
    for (auto begin = keyed.begin(); begin != keyed.end();) {
      const auto end = std::find_if(
          begin, keyed.end(), [&](const KeyedDocument& other) { return other.key != begin->key; });
      if (end - begin > 1) take(std::span<const KeyedDocument>(begin, end));
      begin = end;
    }
  }

  void leave_out_copies(Groups& groups) {
    const auto same = [&](Number a, Number b) {
      return records_[a].hash == records_[b].hash &&
             records_[a].text_bytes == records_[b].text_bytes;
    };
    each_bucket([](const DocumentRecord& record) { return record.hash; },
                [&](std::span<const KeyedDocument> bucket) { join_like(groups, bucket, same); });
    for (std::size_t i = 0; i < records_.size(); ++i)
      if (is_kept(outcomes_[i]) && groups.representative(static_cast<Number>(i)) != i)
        outcomes_[i] = Outcome::ExactDuplicate;
  }

  void leave_out_near(Groups& groups) {
    const auto near = [&](Number a, Number b) {
      return records_[a].has_words && records_[b].has_words &&
             estimated_similarity(records_[a].sketch, records_[b].sketch) >= options_.near;
    };
    for (std::size_t band = 0; band < kMinHashBands; ++band)
      each_bucket([band](const DocumentRecord& record) { return record.bands[band]; },
                  [&](std::span<const KeyedDocument> bucket) { join_like(groups, bucket, near); });
    for (std::size_t i = 0; i < records_.size(); ++i) {
      if (!is_kept(outcomes_[i])) continue;
      const Number kept = groups.representative(static_cast<Number>(i));
      if (kept == i) continue;
      const bool leaks = outcomes_[kept] == Outcome::HeldOut && outcomes_[i] != Outcome::HeldOut;
      outcomes_[i] = leaks ? Outcome::NearHeldOut : Outcome::NearDuplicate;
    }
  }

  // Joins the documents of a bucket that are like one another. Each is compared with one document
  // of every group found so far in the bucket, at most kCompared, so that a bucket of n documents
  // costs no n^2.
  template <class Like>
  void join_like(Groups& groups, std::span<const KeyedDocument> bucket, Like like) {
    constexpr std::size_t kCompared = 64;
    std::vector<Number> seen;
    for (const KeyedDocument& entry : bucket) {
      bool found = false;
      for (const Number other : seen) {
        const bool joined = groups.representative(other) == groups.representative(entry.document);
        if (!joined && !like(other, entry.document)) continue;
        groups.join(other, entry.document);
        found = true;
      }
      if (!found && seen.size() < kCompared) seen.push_back(entry.document);
    }
  }

  std::span<const DocumentRecord> records_;
  DuplicateOptions options_;
  std::vector<Outcome> outcomes_;
};

}  // namespace

std::vector<Outcome> decide_outcomes(std::span<const DocumentRecord> records,
                                     const DuplicateOptions& options) {
  if (records.size() >= std::numeric_limits<Number>::max())
    throw ConfigError(fmt::format(
        "{} documents, but fewer than 2^32 can be looked through for duplicates together; make "
        "several directories of shards",
        records.size()));
  return Decision(records, options).run();
}

}  // namespace minke
