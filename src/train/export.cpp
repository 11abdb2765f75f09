#include "train/export.h"

#include <nlohmann/json.hpp>

#include "base/files.h"

namespace minke {

namespace fs = std::filesystem;

std::vector<fs::path> tokenizer_files(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"})
    if (fs::exists(directory / name)) files.push_back(directory / name);
  return files;
}

void export_model(const fs::path& target, const ModelConfig& config, const MasterSource& master_of,
                  SaveDType dtype, const fs::path& tokenizer) {
  AtomicDirectory directory(target);
  save_model(directory.path(), config, master_of, dtype);
  for (const fs::path& file : tokenizer_files(tokenizer))
    write_file_atomic(directory.path() / file.filename(), read_file(file));
  nlohmann::ordered_json generation = {{"_from_model_config", true}};
  if (config.bos_token_id) generation["bos_token_id"] = *config.bos_token_id;
  if (config.eos_token_ids.size() == 1)
    generation["eos_token_id"] = config.eos_token_ids[0];
  else if (!config.eos_token_ids.empty())
    generation["eos_token_id"] = config.eos_token_ids;
  generation["do_sample"] = true;
  generation["temperature"] = 0.8;
  generation["top_p"] = 0.95;
  write_file_atomic(directory.path() / "generation_config.json", generation.dump(2) + "\n");
  directory.commit();
}

}  // namespace minke
