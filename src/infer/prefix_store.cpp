#include "infer/prefix_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/files.h"
#include "base/log.h"
#include "infer/engine.h"
#include "ops/isa.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kFormat = 0x31'58'46'50'4b'4e'49'4d;  // "MINKPFX1"
constexpr std::string_view kSuffix = ".rows";

struct Header {
  std::uint64_t format, identity, n_tokens, module_rows;
};

struct StoredBlock {
  std::vector<std::int32_t> prefix;
  bool module_rows;
  std::string content;  // the page is its last part before the checksum
};

template <class T>
std::string_view bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::uint64_t identity_of(const Model& model, const PageLayout& layout) {
  constexpr Index n_probe = 2 * kKeyTile;
  std::vector<std::int32_t> probe;
  for (Index i = 0; i < std::min(n_probe, model.config.max_position_embeddings - 1); ++i)
    probe.push_back(static_cast<std::int32_t>((i * i * 7 + i * 13 + 5) % model.config.vocab_size));
  Sequence sequence(model);
  const Tensor logits = sequence.extend(model, probe, AttentionForms{}.prompt, true);
  Hash64 hash;
  hash.add(as_byte_span(fmt::format("{} {} {} {} {} {}", model.config.to_json().dump(),
                                    name_of(model.compute), name_of(chosen_isa()), layout.n_layers,
                                    layout.row.width(), name_of(layout.row.dtype))));
  hash.add(as_byte_span({static_cast<const char*>(logits.raw()), logits.bytes()}));
  return hash.value();
}

// Nothing when the file is not whole, or not of this model.
std::optional<StoredBlock> parse(std::string content, std::uint64_t identity,
                                 std::size_t page_bytes) {
  Header header;
  std::uint64_t checksum;
  if (content.size() < sizeof header + sizeof checksum) return std::nullopt;
  const std::size_t checked = content.size() - sizeof checksum;
  std::memcpy(&header, content.data(), sizeof header);
  std::memcpy(&checksum, content.data() + checked, sizeof checksum);
  if (hash64(as_byte_span(std::string_view(content).substr(0, checked))) != checksum ||
      header.format != kFormat || header.identity != identity || header.n_tokens == 0 ||
      header.n_tokens % static_cast<std::uint64_t>(kKeyTile) != 0 ||
      header.n_tokens > content.size() ||
      checked != sizeof header + header.n_tokens * sizeof(std::int32_t) + page_bytes)
    return std::nullopt;
  StoredBlock block{std::vector<std::int32_t>(header.n_tokens), header.module_rows != 0, {}};
  std::memcpy(block.prefix.data(), content.data() + sizeof header,
              block.prefix.size() * sizeof(std::int32_t));
  block.content = std::move(content);
  return block;
}

std::optional<StoredBlock> read_block(const fs::path& file, std::uint64_t identity,
                                      std::size_t page_bytes) {
  try {
    return parse(read_file(file), identity, page_bytes);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string written(const PrefixCache::Entry& entry, std::uint64_t identity,
                    std::span<const std::byte> page) {
  const Header header{kFormat, identity, entry.prefix.size(), entry.module_rows};
  std::string content(bytes_of(header));
  content.append(reinterpret_cast<const char*>(entry.prefix.data()),
                 entry.prefix.size() * sizeof(std::int32_t));
  content.append(reinterpret_cast<const char*>(page.data()), page.size());
  const std::uint64_t checksum = hash64(as_byte_span(content));
  return content.append(bytes_of(checksum));
}

// Smallest first: beginnings of prompts.
std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<std::pair<std::uintmax_t, fs::path>> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored))
    if (entry.path().extension() == kSuffix)
      found.emplace_back(entry.file_size(ignored), entry.path());
  std::sort(found.begin(), found.end());
  std::vector<fs::path> files;
  for (auto& [size, path] : found) files.push_back(std::move(path));
  return files;
}

}  // namespace

PrefixStore::PrefixStore(const fs::path& directory, const Model& model, const PageLayout& layout)
    : identity_(identity_of(model, layout)) {
  directory_ = directory / to_hex(identity_);
  std::error_code error;
  fs::create_directories(directory_, error);
  if (error) throw_io_error(fmt::format("cannot make {}", directory_.string()), error.value());
  fs::permissions(directory_, fs::perms::owner_all, error);  // what people wrote is in there
}

fs::path PrefixStore::file_of(std::span<const std::int32_t> prefix) const {
  return directory_ / (to_hex(hash64(std::as_bytes(prefix))) + std::string(kSuffix));
}

Index PrefixStore::load(PrefixCache& cache, PagePool& pool) const {
  Index n_loaded = 0, n_damaged = 0;
  const std::size_t page_bytes = pool.layout().bytes();
  for (const fs::path& file : files_in(directory_)) {
    if (pool.n_free() == 0) break;
    const std::optional<StoredBlock> block = read_block(file, identity_, page_bytes);
    if (!block) {
      std::error_code ignored;
      fs::remove(file, ignored);
      ++n_damaged;
      continue;
    }
    const PageId page = pool.take();
    const std::size_t end = block->content.size() - sizeof(std::uint64_t);
    std::memcpy(pool.bytes(page).data(), block->content.data() + end - page_bytes, page_bytes);
    n_loaded += cache.add_last(block->prefix, page, block->module_rows);
    pool.drop(page);  // kept by the cache alone, or free again
  }
  if (n_damaged > 0)
    log_warning(fmt::format("{}: {} damaged prefixes are ignored", directory_.string(), n_damaged));
  return n_loaded;
}

void PrefixStore::save(const PrefixCache& cache, const PagePool& pool) const {
  std::vector<fs::path> current;
  for (const PrefixCache::Entry& entry : cache.entries()) {
    current.push_back(file_of(entry.prefix));
    if (fs::exists(current.back())) continue;
    write_file_atomic(current.back(), written(entry, identity_, pool.bytes(entry.page)));
  }
  std::sort(current.begin(), current.end());
  for (const fs::path& file : files_in(directory_)) {
    std::error_code ignored;
    if (!std::binary_search(current.begin(), current.end(), file)) fs::remove(file, ignored);
  }
}

}  // namespace minke
