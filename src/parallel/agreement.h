// What the ranks of a job decide together.
#pragma once
#include <string>
#include <vector>

#include "base/function_ref.h"
#include "parallel/communicator.h"

namespace minke {

// Collective. Whether any rank says yes; the same answer on all.
bool any_of_ranks(Communicator& ranks, bool own);

// Collective. f() on rank 0, and on the others after it: what rank 0 refuses ends the job and is
// said once, what it leaves in the file system is there for the others.
void first_then_others(Communicator& ranks, FunctionRef<void()> f);

// Collective. The text of rank `from`, on all.
std::string broadcast_text(Communicator& ranks, std::string text, int from);
// Collective. The texts of all ranks in their order, on rank 0; nothing on the others.
std::vector<std::string> gather_texts(Communicator& ranks, const std::string& own);

}  // namespace minke
