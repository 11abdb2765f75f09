#include "data/build_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kState = "state.json";
constexpr const char* kManifest = "manifest.json";
constexpr std::size_t kLargestJson = std::size_t{1} << 28;

fs::path without_slash(fs::path path) {
  while (!path.has_filename() && path.has_parent_path() && path != path.root_path())
    path = path.parent_path();
  return path;
}

// The first setting in which two runs differ: "settings.near_duplicates is 0.9, but was 0.8".
std::string difference(const Json& now, const Json& before, const std::string& prefix = "") {
  for (const auto& [key, value] : now.items()) {
    const Json old = before.is_object() && before.contains(key) ? before[key] : Json();
    if (old == value) continue;
    if (value.is_object()) return difference(value, old, prefix + key + ".");
    return fmt::format("{}{} is {}, but was {}", prefix, key, value.dump(), old.dump());
  }
  return "it was made by another version";
}

Json to_json(const ShardState& state) {
  return {{"shard", state.shard},
          {"tokens_bytes", state.tokens_bytes},
          {"index_bytes", state.index_bytes}};
}

// Names of files need not be UTF-8, JSON must.
std::string as_text(const Json& json) {
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

ShardState shard_state(const Json& json) {
  return {json.at("shard"), json.at("tokens_bytes"), json.at("index_bytes")};
}

}  // namespace

DirectoryLock::DirectoryLock(const fs::path& directory) {
  fd_ = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd_ < 0) throw_io_error(fmt::format("cannot open {}", directory.string()), errno);
  if (flock(fd_, LOCK_EX | LOCK_NB) == 0) return;
  ::close(fd_);
  throw ConfigError(
      fmt::format("{} is locked: another process makes shards there; wait for it or give another "
                  "--out",
                  directory.string()));
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

BuildDirectory::BuildDirectory(const fs::path& out, Json run, bool restart)
    : out_(without_slash(out)),
      partial_(out_.string() + ".partial"),
      run_(Json::parse(as_text(run))) {
  check_out();
  if (found_ != Found::Published) take_up(restart);
}

void BuildDirectory::check_out() {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(out_, error))) return;
  if (fs::is_directory(out_, error) && fs::is_empty(out_, error)) return;
  if (!fs::exists(out_ / kManifest, error))
    throw ConfigError(fmt::format("{} exists and holds no shards; give another --out or remove it",
                                  out_.string()));
  const Json manifest = read_ordered_json(out_ / kManifest, kLargestJson);
  const Json before = manifest.contains("run") ? manifest["run"] : Json();
  if (before != run_)
    throw ConfigError(
        fmt::format("{} holds the shards of another run ({}); give another --out or "
                    "remove it",
                    out_.string(), difference(run_, before)));
  found_ = Found::Published;
}

void BuildDirectory::take_up(bool restart) {
  std::error_code error;
  fs::create_directories(partial_, error);
  if (error) throw IoError(fmt::format("cannot create {}: {}", partial_.string(), error.message()));
  lock_ = DirectoryLock(partial_);
  if (restart)
    for (const auto& entry : fs::directory_iterator(partial_)) fs::remove_all(entry.path());
  const bool whole = fs::exists(file(kManifest));
  if (!whole && !fs::exists(file(kState))) return;
  const Json record = read_ordered_json(file(whole ? kManifest : kState), kLargestJson);
  const Json before = record.contains("run") ? record["run"] : Json();
  if (before != run_)
    throw ConfigError(
        fmt::format("{} was begun by another run ({}); give that run's settings, or "
                    "begin anew with --restart",
                    partial_.string(), difference(run_, before)));
  found_ = Found::Begun;
  if (whole) rename_into_place();  // only this was missing
}

BuildState BuildDirectory::load_state() const {
  BuildState state;
  if (found_ != Found::Begun) return state;
  const fs::path path = file(kState);
  try {
    const Json json = read_ordered_json(path, kLargestJson);
    state.pass = json.at("pass") == "write" ? BuildState::Pass::Write : BuildState::Pass::Read;
    state.input = {json.at("file"), {json.at("offset"), json.at("line")}};
    state.documents = json.at("documents");
    state.written = json.at("written");
    state.broken_files = json.at("broken_files");
    state.skipped_bytes = json.at("skipped_bytes");
    state.sources = json.at("sources").get<std::vector<std::string>>();
    state.train = shard_state(json.at("train"));
    state.held_out = shard_state(json.at("held_out"));
  } catch (const nlohmann::json::exception& error) {
    throw FormatError(
        fmt::format("{}: {}; begin anew with --restart", path.string(), error.what()));
  }
  return state;
}

void BuildDirectory::save_state(const BuildState& state) const {
  const Json json = {{"run", run_},
                     {"pass", state.pass == BuildState::Pass::Write ? "write" : "read"},
                     {"file", state.input.file},
                     {"offset", state.input.item.offset},
                     {"line", state.input.item.line},
                     {"documents", state.documents},
                     {"written", state.written},
                     {"broken_files", state.broken_files},
                     {"skipped_bytes", state.skipped_bytes},
                     {"sources", state.sources},
                     {"train", to_json(state.train)},
                     {"held_out", to_json(state.held_out)}};
  write_file_atomic(file(kState), as_text(json));
}

void BuildDirectory::publish(const Json& manifest) {
  write_file_atomic(file(kManifest), as_text(manifest));
  rename_into_place();
}

// May be repeated after a kill: the manifest is there, so nothing else is needed any more.
void BuildDirectory::rename_into_place() {
  for (const char* name : {"documents", "outcomes", kState}) fs::remove(file(name));
  for (const auto& entry : fs::directory_iterator(partial_))
    if (entry.path().filename().string().find(".partial-") != std::string::npos)
      fs::remove(entry.path());  // of a state that was never put in place
  if (::rename(partial_.c_str(), out_.c_str()) != 0)
    throw_io_error(fmt::format("cannot rename {} to {}", partial_.string(), out_.string()), errno);
  const fs::path parent = out_.parent_path().empty() ? "." : out_.parent_path();
  const int fd = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd);
    ::close(fd);
  }
  found_ = Found::Published;
}

Json BuildDirectory::manifest() const {
  return read_ordered_json(out_ / kManifest, kLargestJson);
}

}  // namespace minke
