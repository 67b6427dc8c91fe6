System.Console.WriteLine("odisk");
