#include "parallel/mpirun.h"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace minke {

std::vector<std::string> mpirun_command(const JobShape& shape, int cores,
                                        const std::vector<std::string>& flags,
                                        const std::vector<std::string>& program) {
  std::vector<std::string> command = {"mpirun", "-np", std::to_string(shape.ranks), "--bind-to",
                                      "none"};
  const auto add = [&](std::initializer_list<const char*> words) {
    command.insert(command.end(), words.begin(), words.end());
  };
  if (!shape.hosts.empty()) {
    add({"--host", to_string(shape.hosts).c_str()});
    add({"--mca", "oob_tcp_keepalive_time", "10", "--mca", "oob_tcp_keepalive_intvl", "5", "--mca",
         "oob_tcp_keepalive_probes", "4"});
  } else if (cores > 0) {
    add({"--oversubscribe"});
    if (shape.ranks > cores) add({"--mca", "mpi_yield_when_idle", "1"});
  }
  command.insert(command.end(), flags.begin(), flags.end());
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

std::vector<std::string> split_words(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

bool runs_program(int id, const std::string& program) {
  std::error_code error;
  const std::filesystem::path found =
      std::filesystem::read_symlink(fmt::format("/proc/{}/exe", id), error);
  return !error && found == program;
}

std::vector<int> ranks_started_by(int mpirun, const std::string& program) {
  std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", mpirun));
  std::vector<int> ranks;
  for (int process = 0; children >> process;)
    if (runs_program(process, program)) ranks.push_back(process);
  return ranks;
}

}  // namespace minke
