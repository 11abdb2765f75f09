#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace minke {
namespace {

// The mappings as the signal handler sees them: a list that only grows; a slot whose length is 0 is
// free. Adding, reusing and reading need no lock.
struct Slot {
  std::atomic<bool> used{false};
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::size_t> length{0};
  std::atomic<bool> damaged{false};
  Slot* next = nullptr;
};
std::atomic<Slot*> g_slots{nullptr};
struct sigaction g_previous;
std::uintptr_t g_page = 4096;

// Runs on the thread that touched a page its file no longer has. Everything from that page to the
// end of the mapping becomes zeros, and the reader finds the mark at its next check_intact().
void on_sigbus(int, siginfo_t* info, void*) {
  const int saved = errno;
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (Slot* s = g_slots.load(std::memory_order_acquire); s; s = s->next) {
    const std::size_t length = s->length.load(std::memory_order_acquire);
    const std::uintptr_t begin = s->begin.load(std::memory_order_relaxed);
    if (at < begin || at - begin >= length) continue;
    s->damaged.store(true, std::memory_order_release);
    const std::uintptr_t page = at / g_page * g_page;
    const std::size_t rest = begin + (length + g_page - 1) / g_page * g_page - page;
    if (mmap(reinterpret_cast<void*>(page), rest, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
      break;
    errno = saved;
    return;
  }
  // Not ours: let it happen again under whatever was installed before.
  sigaction(SIGBUS, &g_previous, nullptr);
  errno = saved;
}

void install_handlers() {
  static const bool once = [] {
    g_page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
    struct sigaction action {};
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &g_previous);
    return true;
  }();
  (void)once;
}

Slot* take_slot(const void* data, std::size_t size) {
  Slot* slot = nullptr;
  for (Slot* s = g_slots.load(std::memory_order_acquire); s && !slot; s = s->next) {
    bool expected = false;
    if (s->used.compare_exchange_strong(expected, true)) slot = s;
  }
  const bool fresh = !slot;
  if (fresh) {
    slot = new Slot;  // lives as long as the process: the handler may be walking the list
    slot->used = true;
  }
  slot->damaged = false;
  slot->begin.store(reinterpret_cast<std::uintptr_t>(data), std::memory_order_relaxed);
  slot->length.store(size, std::memory_order_release);
  if (fresh) {
    slot->next = g_slots.load(std::memory_order_relaxed);
    while (!g_slots.compare_exchange_weak(slot->next, slot)) {
    }
  }
  return slot;
}

int open_for_reading(const std::filesystem::path& path, std::uint64_t& size) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) throw_io_error(fmt::format("cannot open {}", path.string()), errno);
  struct stat st;
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd);
    throw IoError(fmt::format("cannot read {}: not a regular file", path.string()));
  }
  size = static_cast<std::uint64_t>(st.st_size);
  return fd;
}

void advise(const std::byte* data, std::size_t size, std::size_t begin, std::size_t end,
            bool need) {
  if (!data || begin >= end || end > size) return;
  const auto first = reinterpret_cast<std::uintptr_t>(data) + begin;
  const auto last = reinterpret_cast<std::uintptr_t>(data) + end;
  // Wanted: every page touched. Not wanted: only pages that lie wholly inside.
  const std::uintptr_t from =
      need ? first / g_page * g_page : (first + g_page - 1) / g_page * g_page;
  const std::uintptr_t to = need ? last : last / g_page * g_page;
  if (from < to)
    madvise(reinterpret_cast<void*>(from), to - from, need ? MADV_WILLNEED : MADV_DONTNEED);
}

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path) {
  install_handlers();
  std::uint64_t size = 0;
  const int fd = open_for_reading(path, size);
  MappedFile file;
  file.path_ = path;
  if (size > 0) {
    void* p = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    const int error = errno;
    ::close(fd);
    if (p == MAP_FAILED) throw_io_error(fmt::format("cannot map {}", path.string()), error);
    file.data_ = static_cast<const std::byte*>(p);
    file.size_ = size;
    file.slot_ = take_slot(p, size);
  } else {
    ::close(fd);
  }
  return file;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      slot_(std::exchange(other.slot_, nullptr)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    close();
    path_ = std::move(other.path_);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
    slot_ = std::exchange(other.slot_, nullptr);
  }
  return *this;
}

MappedFile::~MappedFile() {
  close();
}

void MappedFile::close() noexcept {
  if (!data_) return;
  Slot* slot = static_cast<Slot*>(slot_);
  slot->length.store(0, std::memory_order_release);
  munmap(const_cast<std::byte*>(data_), size_);
  slot->used.store(false, std::memory_order_release);
  data_ = nullptr;
}

void MappedFile::check_intact() const {
  if (slot_ && static_cast<Slot*>(slot_)->damaged.load(std::memory_order_acquire))
    throw IoError(fmt::format(
        "{}: the file became shorter than {} bytes, or its disk failed, while it was being read; "
        "restore it and start again",
        path_.string(), size_));
}

void MappedFile::prefetch(std::size_t begin, std::size_t end) const {
  advise(data_, size_, begin, end, true);
}

void MappedFile::drop(std::size_t begin, std::size_t end) const {
  // A damaged mapping holds zero pages that a reader may still be on: leave them.
  if (slot_ && static_cast<Slot*>(slot_)->damaged.load()) return;
  advise(data_, size_, begin, end, false);
}

std::string read_file(const std::filesystem::path& path, std::size_t limit) {
  FileReader reader(path);
  if (reader.size() > limit)
    throw FormatError(
        fmt::format("{}: {} bytes, at most {} expected", path.string(), reader.size(), limit));
  std::string content(reader.size(), '\0');
  reader.pread_exact(0, {reinterpret_cast<std::byte*>(content.data()), content.size()});
  return content;
}

FileReader::FileReader(const std::filesystem::path& path)
    : path_(path), fd_(open_for_reading(path, size_)) {}

FileReader::~FileReader() {
  ::close(fd_);
}

void FileReader::pread_exact(std::uint64_t offset, std::span<std::byte> out) const {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io_error(fmt::format("cannot read {}", path_.string()), errno);
    if (n == 0)
      throw IoError(fmt::format("{}: ends after {} bytes, {} expected", path_.string(),
                                offset + done, offset + out.size()));
    done += static_cast<std::size_t>(n);
  }
}

FileWriter::FileWriter(std::filesystem::path path) : path_(std::move(path)) {
  // A limit on file sizes shall be an error like a full disk, not a signal.
  static const bool once = (std::signal(SIGXFSZ, SIG_IGN), true);
  (void)once;
  fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) throw_io_error(fmt::format("cannot create {}", path_.string()), errno);
  struct stat st;
  regular_ = fstat(fd_, &st) == 0 && S_ISREG(st.st_mode);
}

FileWriter::~FileWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (regular_) ::unlink(path_.c_str());
}

void FileWriter::write(std::span<const std::byte> bytes) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;       // written while it is in cache
  constexpr std::uint64_t kFlush = std::uint64_t{64} << 20;  // the disk starts before fsync
  while (!bytes.empty()) {
    std::span<const std::byte> piece = bytes.first(std::min(bytes.size(), kPiece));
    bytes = bytes.subspan(piece.size());
    // Hashed first: pages of a mapped file that went missing then become zeros here (and its
    // check_intact() tells) instead of a "bad address" in write().
    hash_.add(piece);
    while (!piece.empty()) {
      const ssize_t n = ::write(fd_, piece.data(), piece.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        throw_io_error(fmt::format("cannot write {} after {} bytes", path_.string(), bytes_),
                       errno);
      piece = piece.subspan(static_cast<std::size_t>(n));
      bytes_ += static_cast<std::uint64_t>(n);
    }
    if (bytes_ - flushed_ >= kFlush) {
      sync_file_range(fd_, static_cast<off_t>(flushed_), static_cast<off_t>(bytes_ - flushed_),
                      SYNC_FILE_RANGE_WRITE);
      flushed_ = bytes_;
    }
  }
}

FileDigest FileWriter::finish() {
  const auto fail = [&](const char* what) {
    throw_io_error(fmt::format("cannot {} {}", what, path_.string()), errno);
  };
  // Devices and pipes cannot be synced, and need not be.
  if (fsync(fd_) != 0 && errno != EINVAL && errno != EROFS) fail("sync");
  const int fd = std::exchange(fd_, -1);
  if (::close(fd) != 0) {
    const int error = errno;
    if (regular_) ::unlink(path_.c_str());
    errno = error;
    fail("close");
  }
  return {bytes_, hash_.value()};
}

}  // namespace minke
