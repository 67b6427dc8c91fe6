System.Console.WriteLine("odiskd");
