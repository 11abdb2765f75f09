#include "cli/eval_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/threads.h"
#include "ops/isa.h"

namespace minke {

void for_each_document(const EvalOptions& o, FunctionRef<void(Document)> f) {
  std::map<std::string, std::int64_t> taken;
  const std::int64_t most = o.max_bytes.value_or(INT64_MAX);
  for (const std::string& path : o.data)
    read_documents(path, [&](Document d) {
      std::int64_t& bytes = taken[d.source];
      auto end = static_cast<std::size_t>(
          std::min(static_cast<std::int64_t>(d.text.size()), most - bytes));
      bytes += static_cast<std::int64_t>(end);
      if (end < d.text.size()) {  // between two characters
        while (end > 0 && (static_cast<unsigned char>(d.text[end]) & 0xC0) == 0x80) --end;
        if (end == 0) return;
        d.text.resize(end);
      }
      f(std::move(d));
    });
}

std::int64_t count_bytes(const EvalOptions& o) {
  if (o.data.empty()) throw UsageError(fmt::format("--task {} needs --data FILE or DIR", o.task));
  std::int64_t bytes = 0;
  for_each_document(o,
                    [&](const Document& d) { bytes += static_cast<std::int64_t>(d.text.size()); });
  if (bytes == 0) throw ConfigError("--data: no text found in .txt or .jsonl files");
  return bytes;
}

ResultFile::ResultFile(const std::optional<std::string>& path) {
  if (!path) return;
  file_.emplace(*path);
  FileWriter(file_->partial()).finish();
}

void ResultFile::write(const nlohmann::ordered_json& results) {
  if (!file_) return;
  FileWriter writer(file_->partial());
  writer.write(results.dump(2) + "\n");
  writer.finish();
  file_->commit();
}

nlohmann::ordered_json settings_of(const EvalOptions& o, bool begin_of_sentence) {
  return {
      {"model", o.model.model},
      {"data", o.data},
      {"compute", o.model.compute},
      {"max_bytes", o.max_bytes ? nlohmann::ordered_json(*o.max_bytes) : nlohmann::ordered_json()},
      {"begin_of_sentence", begin_of_sentence},
      {"batch_tokens", o.batch_tokens},
      {"isa", name_of(chosen_isa())},
      {"threads", n_threads()},
      {"version", MINKE_VERSION}};
}

std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

}  // namespace minke
