#include "data/shard_build.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/threads.h"
#include "data/build_directory.h"
#include "data/duplicates.h"
#include "data/held_out.h"
#include "data/shard_manifest.h"
#include "data/skipped_log.h"
#include "data/text_encoder.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

// Names of sources are held in memory: a name for every document is a mistake.
constexpr std::size_t kMostSources = 65536;

// Files of the result must not become input of the next run that goes on with it.
void check_apart(const ShardBuild& build) {
  const fs::path out = fs::weakly_canonical(fs::absolute(build.out));
  for (const std::string& in : build.in) {
    const fs::path folder = fs::weakly_canonical(fs::absolute(in));
    const auto end = std::mismatch(folder.begin(), folder.end(), out.begin(), out.end()).first;
    if (fs::is_directory(folder) && end == folder.end())
      throw ConfigError(
          fmt::format("--out {} lies in the input {}; give another place", build.out, in));
  }
}

struct EncodedDocument {
  std::vector<std::int32_t> train, held_out;  // empty: nothing of it goes there
  std::uint64_t train_bytes = 0, held_out_bytes = 0;
};

class Build {
 public:
  Build(const ShardBuild& build, FunctionRef<bool()> stop)
      : build_(build),
        settings_(build.settings),
        stop_(stop),
        tokenizer_(Tokenizer::load(build.tokenizer)),
        encoder_(tokenizer_, build.tokenizer),
        files_(find_input_files(build.in, build.settings.text_endings)),
        directory_(build.out, identity(), build.restart) {}

  Json run() {
    if (directory_.found() == BuildDirectory::Found::Published) {
      log_info(fmt::format("{} is complete", build_.out));
      return directory_.manifest();
    }
    if (directory_.found() == BuildDirectory::Found::Begun)
      log_info(fmt::format("going on with {}.partial", build_.out));
    state_ = directory_.load_state();
    saved_ = Clock::now();
    if (state_.pass == BuildState::Pass::Read) read_pass();
    write_pass();
    directory_.publish(make_manifest());
    return directory_.manifest();
  }

 private:
  // What the result depends on.
  Json identity() {
    DataSettings settings = settings_;
    return {{"in", build_.in},
            {"inputs", to_hex(files_.fingerprint())},
            {"tokenizer", to_hex(tokenizer_hash(build_.tokenizer))},
            {"settings", options_to_json(OptionList(settings))}};
  }

  const InputFile& file(std::int64_t number) const {
    return files_.files[static_cast<std::size_t>(number)];
  }
  bool wants_minhash() const { return settings_.near_duplicates > 0; }

  bool checkpoint_is_due() const {
    return std::chrono::duration<double>(Clock::now() - saved_).count() >=
           build_.checkpoint_seconds;
  }

  [[noreturn]] void interrupted() const {
    throw Interrupted(fmt::format("stopped; the same command goes on from {}.partial", build_.out));
  }

  // ---- First pass

  void read_pass() {
    ResumableFile records(directory_.file("documents"),
                          static_cast<std::uint64_t>(state_.documents) * sizeof(DocumentRecord));
    SkippedLog skipped(directory_.file("skipped.jsonl"), state_.skipped_bytes, settings_);
    if (state_.input == InputPosition{})
      for (const FileProblem& problem : files_.problems) skipped.add(problem);
    for (const std::string& source : state_.sources) number_of_source(source);
    const auto save = [&](InputPosition position) {
      records.sync();
      state_.skipped_bytes = skipped.sync();
      state_.input = position;
      directory_.save_state(state_);
      saved_ = Clock::now();
    };
    DocumentInput input(files_.files, static_cast<std::size_t>(settings_.max_item_bytes),
                        state_.input);
    Progress progress(progress_options("read", input));
    for (InputBatch batch; input.next(batch, static_cast<std::size_t>(build_.batch_bytes));) {
      for (const CheckedDocument& checked : check(batch)) records.write(bytes_of(checked.record));
      // Faults are told afterwards, in the order of the input, with the numbers of sources set.
      note_faults(batch, skipped);
      progress.update(static_cast<std::int64_t>(input.consumed()),
                      fmt::format("{} documents", state_.documents));
      if (checkpoint_is_due()) save(input.position());
      if (stop_()) {
        save(input.position());
        interrupted();
      }
    }
    progress.finish();
    skipped.finish();
    if (state_.documents == 0)
      throw FormatError(
          fmt::format("no text in {}; expected .jsonl or text files that are not empty",
                      fmt::join(build_.in, ", ")));
    state_.pass = BuildState::Pass::Write;
    save({});
  }

  ProgressOptions progress_options(const char* label, const DocumentInput& input) const {
    return {.label = label,
            .unit = "bytes",
            .total = static_cast<std::int64_t>(files_.bytes()),
            .start = static_cast<std::int64_t>(input.consumed())};
  }

  static std::span<const std::byte> bytes_of(const DocumentRecord& record) {
    return std::as_bytes(std::span(&record, 1));
  }

  // The records of a batch, sources numbered in the order of the input.
  const std::vector<CheckedDocument>& check(InputBatch& batch) {
    checked_.assign(batch.items.size(), {});
    parallel_for(static_cast<Index>(batch.items.size()), [&](Index i) {
      InputItem& item = batch.items[static_cast<std::size_t>(i)];
      CheckedDocument& checked = checked_[static_cast<std::size_t>(i)];
      checked = check_document(item.item, file(item.file), settings_, wants_minhash());
      std::string().swap(checked.text);
    });
    for (CheckedDocument& checked : checked_) {
      ++state_.documents;
      if (checked.record.outcome == Outcome::Train)
        checked.record.source = number_of_source(checked.source);
    }
    return checked_;
  }

  std::uint32_t number_of_source(const std::string& name) {
    const auto [place, is_new] =
        source_numbers_.try_emplace(name, static_cast<std::uint32_t>(source_numbers_.size()));
    if (is_new && place->second >= state_.sources.size()) state_.sources.push_back(name);
    if (source_numbers_.size() > kMostSources)
      throw ConfigError(fmt::format(
          "more than {} different sources; --source-field must name a field that many documents "
          "share",
          kMostSources));
    return place->second;
  }

  void note_faults(const InputBatch& batch, SkippedLog& skipped) {
    for (std::size_t i = 0; i < batch.items.size(); ++i) {
      const CheckedDocument& checked = checked_[i];
      if (is_bad_data(checked.record.outcome))
        skipped.add(file(batch.items[i].file), batch.items[i].item.line, checked.record.outcome,
                    checked.problem);
    }
    if (!batch.failure) return;
    ++state_.broken_files;
    skipped.add(*batch.failure);
  }

  // ---- Between the passes

  std::span<const DocumentRecord> records_of(const MappedFile& file) const {
    if (file.bytes().size() != static_cast<std::size_t>(state_.documents) * sizeof(DocumentRecord))
      throw IoError(
          fmt::format("{} has {} bytes, {} expected: it was changed; begin anew with "
                      "--restart",
                      file.path().string(), file.bytes().size(),
                      static_cast<std::size_t>(state_.documents) * sizeof(DocumentRecord)));
    return {reinterpret_cast<const DocumentRecord*>(file.bytes().data()),
            static_cast<std::size_t>(state_.documents)};
  }

  // Kept in a file: looking for duplicates takes long when there are many documents.
  void decide() {
    const fs::path path = directory_.file("outcomes");
    outcomes_.resize(static_cast<std::size_t>(state_.documents));
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(outcomes_));
    if (fs::exists(path) && fs::file_size(path) == bytes.size()) {
      FileReader(path).pread_exact(0, bytes);
      return;
    }
    outcomes_ =
        decide_outcomes(records_of(records_), {.held_out_fraction = settings_.held_out_fraction,
                                               .exact = settings_.exact_duplicates,
                                               .near = settings_.near_duplicates});
    records_.check_intact();
    write_file_atomic(path, {reinterpret_cast<const char*>(outcomes_.data()), outcomes_.size()});
  }

  // ---- Second pass

  void write_pass() {
    records_ = MappedFile::open(directory_.file("documents"));
    decide();
    const int id_bytes = id_bytes_of(tokenizer_.vocab_size());
    ShardWriter train(directory_.file(""), Split::Train, id_bytes, settings_.shard_tokens,
                      state_.train);
    ShardWriter held_out(directory_.file(""), Split::HeldOut, id_bytes, settings_.shard_tokens,
                         state_.held_out);
    const auto save = [&](InputPosition position) {
      state_.train = train.sync();
      state_.held_out = held_out.sync();
      state_.input = position;
      directory_.save_state(state_);
      saved_ = Clock::now();
    };
    DocumentInput input(files_.files, static_cast<std::size_t>(settings_.max_item_bytes),
                        state_.input);
    Progress progress(progress_options("tokenize", input));
    for (InputBatch batch; input.next(batch, static_cast<std::size_t>(build_.batch_bytes));) {
      const std::span<const DocumentRecord> records = take_records(batch.items.size());
      const std::vector<EncodedDocument> encoded = encode(batch, records);
      for (std::size_t i = 0; i < encoded.size(); ++i) {
        const EncodedDocument& document = encoded[i];
        if (!document.train.empty())
          train.add(document.train, records[i].source, document.train_bytes);
        if (!document.held_out.empty())
          held_out.add(document.held_out, records[i].source, document.held_out_bytes);
      }
      state_.written += static_cast<std::int64_t>(encoded.size());
      progress.update(static_cast<std::int64_t>(input.consumed()));
      if (checkpoint_is_due()) save(input.position());
      if (stop_()) {
        save(input.position());
        interrupted();
      }
    }
    if (state_.written != state_.documents) fail_changed();
    n_train_ = train.finish();
    n_held_out_ = held_out.finish();
  }

  [[noreturn]] void fail_changed() const {
    throw IoError("the input changed between the two passes over it; begin anew with --restart");
  }

  std::span<const DocumentRecord> take_records(std::size_t n) const {
    const auto at = static_cast<std::size_t>(state_.written);
    if (n > outcomes_.size() - at) fail_changed();
    return records_of(records_).subspan(at, n);
  }

  std::vector<EncodedDocument> encode(InputBatch& batch,
                                      std::span<const DocumentRecord> records) const {
    std::vector<EncodedDocument> encoded(batch.items.size());
    parallel_for(static_cast<Index>(encoded.size()), [&](Index number) {
      const auto i = static_cast<std::size_t>(number);
      const Outcome outcome = outcomes_[static_cast<std::size_t>(state_.written) + i];
      if (!is_kept(outcome)) return;
      InputItem& item = batch.items[i];
      const CheckedDocument checked = check_document(item.item, file(item.file), settings_, false);
      if (checked.record.hash != records[i].hash) fail_changed();
      encoded[i] = checked.messages.empty() ? encode(checked.text, outcome)
                                            : encode_dialogue(checked, outcome);
    });
    return encoded;
  }

  EncodedDocument encode(std::string_view text, Outcome outcome) const {
    std::size_t cut = outcome == Outcome::HeldOut ? 0 : text.size();
    if (outcome == Outcome::Cut) cut = held_out_cut(text, settings_.held_out_fraction);
    EncodedDocument encoded;
    encoded.train_bytes = cut, encoded.held_out_bytes = text.size() - cut;
    if (cut > 0) encoded.train = encoder_.document(text.substr(0, cut));
    if (cut < text.size()) encoded.held_out = encoder_.document(text.substr(cut));
    return encoded;
  }

  // Never cut: half a dialogue is none.
  EncodedDocument encode_dialogue(const CheckedDocument& checked, Outcome outcome) const {
    EncodedDocument encoded;
    const bool held_out = outcome == Outcome::HeldOut;
    (held_out ? encoded.held_out_bytes : encoded.train_bytes) = checked.text.size();
    (held_out ? encoded.held_out : encoded.train) = encoder_.dialogue(checked.messages);
    return encoded;
  }

  Json make_manifest() const {
    return shard_manifest({.directory = directory_.file(""),
                           .run = directory_.run(),
                           .files = files_,
                           .broken_files = state_.broken_files,
                           .sources = state_.sources,
                           .records = records_of(records_),
                           .outcomes = outcomes_,
                           .encoder = encoder_,
                           .n_train = n_train_,
                           .n_held_out = n_held_out_});
  }

  const ShardBuild& build_;
  const DataSettings& settings_;
  FunctionRef<bool()> stop_;
  Tokenizer tokenizer_;
  TextEncoder encoder_;
  InputFiles files_;
  BuildDirectory directory_;
  BuildState state_;
  Clock::time_point saved_;
  std::map<std::string, std::uint32_t> source_numbers_;
  std::vector<CheckedDocument> checked_;  // of the batch
  MappedFile records_;
  std::vector<Outcome> outcomes_;
  std::int64_t n_train_ = 0, n_held_out_ = 0;
};

}  // namespace

Json build_shards(const ShardBuild& build, FunctionRef<bool()> stop) {
  check_apart(build);
  return Build(build, stop).run();
}

}  // namespace minke
